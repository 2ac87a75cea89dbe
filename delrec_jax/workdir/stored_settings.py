"""The config that a workdir was made with, for commands that are given none."""

import json
from pathlib import Path
from typing import Any

from delrec_jax.config import Experiment, as_config, from_config
from delrec_jax.errors import UserError
from delrec_jax.files import expanded
from delrec_jax.workdir.bucket import SCHEME, Bucket
from delrec_jax.workdir.json_files import read_settings
from delrec_jax.workdir.workdir_checks import PLACES

_NAME = "config.json"


def stored_experiment(place: str | Path) -> Experiment:
    """Returns the experiment of a workdir without the settings of the machines that it ran on, as this may be another one.

    Args:
      place: a folder, or the URL of one in a bucket.

    Raises:
      UserError: there is no config, it cannot be read, or it is not one of this version.
    """
    stored = str(place).startswith(SCHEME)
    settings = _in_bucket(str(place)) if stored else _in_folder(expanded(place))
    own = {key: value for key, value in settings.items() if key not in PLACES}
    path = f"{place}/{_NAME}"
    config = as_config(own, path)
    try:
        return from_config(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _in_folder(folder: Path) -> dict[str, Any]:
    path = folder / _NAME
    if not path.exists():
        raise _missing(str(path))
    return read_settings(path)


def _in_bucket(url: str) -> dict[str, Any]:
    bucket = Bucket(url)
    found = bucket.read(_NAME)
    if found is None:
        raise _missing(f"{bucket.url}/{_NAME}")
    try:
        settings: dict[str, Any] = dict(json.loads(found[0]))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{bucket.url}/{_NAME}: cannot be read ({error}); give --config=FILE"
        ) from error
    return settings


def _missing(place: str) -> UserError:
    return UserError(f"{place} is not there: give the --workdir of a run, or --config=FILE")
