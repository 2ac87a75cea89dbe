"""The best trial of a search as a config file: the base, and what the trial changes of it."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from delrec_jax.config import Experiment, from_config, leaf_values, read_config
from delrec_jax.files import write_text

_TEXT = '''"""{about}

Command: delrec run --config={command} --workdir=runs/best
The base is found from this file's own folder, so that the command works from every folder in which the base's own works, such
as the repository's, as long as the two files keep their places.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config

BASE = {base!r}

CHANGES = {{
{changes}
}}


def get_config() -> ConfigDict:
    config = base_config(__file__, BASE{argument})
    config.update_from_flattened_dict(CHANGES)
    return config
'''


def write_best(
    path: Path, about: str, base: tuple[Path, str | None], experiment: Experiment
) -> dict[str, Any]:
    """Writes a config file that runs; returns the changes that it states.

    Args:
      path: of the file.
      about: the first line of its docstring.
      base: the config file that it begins with, and the argument of its `get_config`.
      experiment: the complete settings that it should give.
    """
    file, argument = base
    changes = changed(read_config(file, argument), experiment)
    lines = [f"    {key!r}: {value!r}," for key, value in changes.items()]
    text = _TEXT.format(
        about=about,
        command=path,
        base=os.path.relpath(file.resolve(), path.parent.resolve()),
        argument="" if argument is None else f", argument={argument!r}",
        changes="\n".join(lines) or "    # none: the best trial is the base",
    )
    write_text(path, text)
    return changes


def changed(base: ConfigDict, experiment: Experiment) -> dict[str, Any]:
    """The values by dotted key that an experiment has, and a base has not.

    Args:
      base: a config.
      experiment: with the same keys.
    """
    before, now = _leaves(from_config(base)), _leaves(experiment)
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in now.items()
        if value != before[key]
    }


def _leaves(experiment: Experiment) -> dict[str, Any]:
    """All values by dotted key, with those that `config.to_dict` leaves out where they are off."""
    return dict(leaf_values(json.loads(json.dumps(asdict(experiment)))))
