"""Whether a folder is the workdir of a run: of these settings, and without files of the user's where stages write."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from delrec_jax.config import YOUNGER, leaf_keys
from delrec_jax.errors import UserError, differences
from delrec_jax.workdir import kept_files
from delrec_jax.workdir.json_files import read_settings
from delrec_jax.workdir.setting_values import value_at

# What is in these places is part of what the stages make of it, such as teacher.json.
FILES = ("data.manual_dir", "data.download_dir", "teacher.lists")

# The location of files, the devices and how steps are dispatched do not affect results: a run may be resumed elsewhere.
PLACES = (
    *FILES,
    "teacher.steps_per_call",
    *("mesh", "distributed", "profile", "watch", "hang_after"),
    "tensorboard",  # a setting of earlier versions, which their workdirs have
)

_NAMED = ("distill.tasks.",)
"""Sections whose keys the user chooses, so that they may be gone."""

_OFF = (".loop.on_spike", *(".".join(path) for path in YOUNGER))
"""Ends of keys that are there only if they are set (`config.to_dict`)."""


def check_own_folders(folders: Iterable[Path]) -> None:
    """Refuses files of the user's where stages write: a stage removes what is not its own.

    Raises:
      UserError: a folder has files, and nothing says that a stage made them.
    """
    for folder in folders:
        if folder.is_dir() and not os.path.lexists(folder / kept_files.MARKER):
            others = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
            if others:
                raise UserError(
                    f"--workdir={folder.parent}: {folder.name}/ has files that no run made, such as {others[0]}, and a run "
                    "would write there: give another --workdir, or move them away"
                )


def check_settings(path: Path, settings: dict[str, Any], *, may_change: Callable[[], bool]) -> None:
    """Refuses a workdir of other settings.

    Args:
      path: its `config.json`.
      settings: those of the run.
      may_change: whether other settings may take the place of those in the file.

    Raises:
      UserError: it is not the config of a run of this version, or one of other settings, which may not change.
    """
    before = read_settings(path)
    unknown = [key for key in before if key not in settings and key not in PLACES]
    if unknown:
        raise UserError(
            f"{path} has the setting {unknown[0]!r}, which this version of delrec_jax does not have: it is not the config of "
            "a run, or of one of another version; give another --workdir"
        )
    gone = [key for key in leaf_keys(before) if key.startswith(_NAMED) or key.endswith(_OFF)]
    changed = differences(
        {
            key: (value_at(before, key), value_at(settings, key))
            for key in dict.fromkeys([*leaf_keys(settings), *gone])
            if not key.startswith(PLACES)
        }
    )
    if changed and not may_change():
        raise UserError(
            f"--workdir={path.parent} belongs to another config: {changed}; give another --workdir, or --update to run the "
            "affected stages again"
        )
