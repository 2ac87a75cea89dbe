"""`config.json` of a shared folder: the run's settings as plain data, without paths and without names of code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from delrec_jax.config import Experiment, as_config, from_config, leaf_values, to_dict
from delrec_jax.errors import UserError
from delrec_jax.hub.manifest import read_part
from delrec_jax.plugins import is_own
from delrec_jax.workdir.workdir_checks import PLACES

_PATHS = (("data", "path"), ("data", "manual_dir"), ("data", "download_dir"), ("teacher", "lists"))
_FREE_TEXT = ("distill.init_text",)


def shared_settings(experiment: Experiment, base: str) -> dict[str, Any]:
    """Returns a run's settings as others may see them: paths end in their last part, machines are left out.

    Args:
      experiment: the run's config.
      base: what the pretrained weights are called; "" if there are none.

    Raises:
      UserError: a setting names code of the user's own, which cannot be shared.
    """
    settings = {key: value for key, value in to_dict(experiment).items() if key not in PLACES}
    for section, key in _PATHS:
        settings[section][key] = Path(settings[section][key]).name
    settings["lm"] |= {"weights": base, "tokenizer": ""}
    for key, value in _own_code(settings):
        raise UserError(
            f"{key} is {value!r}, which is code of your own: a shared folder holds no code, so others would not have it"
        )
    return settings


def read_shared_settings(file: Path) -> Experiment:
    """Reads the settings, and has the config's own classes check them.

    Raises:
      UserError: not JSON, an unknown key, a wrong value, or a setting that names code.
    """
    settings = read_part(file)
    for key, value in _own_code(settings):
        raise UserError(f"{file}: {key} is {value!r}, which names code: it is not loaded")
    try:
        return from_config(as_config(settings, "config.json"))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _own_code(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the settings that name a file or module of code (`plugins`)."""
    for key, value in leaf_values(settings).items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and is_own(text) and key not in _FREE_TEXT:
                yield key, text
