"""Whether pretrained weights are still those that a run began with, without reading all their bytes in every stage.

Process 0 hashes them once and notes path, size and time of each file; as long as these are the same, the files count as
unchanged, in this run and in its next start. The other processes, whose files may be copies on other machines, compare sizes.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from delrec_jax.distributed import as_main_sees, is_main
from delrec_jax.errors import UserError
from delrec_jax.files import COARSE_TIMES
from delrec_jax.language import hub
from delrec_jax.workdir.json_files import read_json, write_json
from delrec_jax.workdir.kept_files import WEIGHTS_NOTE


def hashed(folder: Path, directory: Path) -> str:
    """Returns the fingerprint of the weights in a directory; only process 0 may call it.

    Args:
      folder: where the note of files that were hashed is kept.
      directory: the model's directory.

    Raises:
      UserError: as in `hub.fingerprint`.
    """
    files = {path.name: path.stat() for path in hub.weight_files(directory)}
    seen = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in files.items()}
    if (note := _note(folder)) and note["directory"] == str(directory) and note["files"] == seen:
        known: str = note["fingerprint"]
        return known
    began = time.time_ns()
    found = hub.fingerprint(directory)
    for size_and_time in seen.values():
        if size_and_time[1] > began - COARSE_TIMES:
            size_and_time[1] = 0  # a later change could leave the same time: hash again next time
    with suppress(OSError):  # where nothing can be noted, the weights are hashed each time
        write_json(
            folder / WEIGHTS_NOTE,
            {"directory": str(directory), "files": seen, "fingerprint": found},
        )
    return found


def check_unchanged(folder: Path, directory: Path, *, name: str, begun: str) -> None:
    """Refuses other weights than those that the run began with; all processes must call it.

    Args:
      folder: as in `hashed`.
      directory: this process's copy of the weights.
      name: `lm.weights`.
      begun: the fingerprint that the run began with.

    Raises:
      UserError: these are other weights.
    """
    found = hashed(folder, directory) if is_main() else "another one"
    remedy = "restore the original weights, or give another --workdir"
    if not as_main_sees(lambda: found == begun):
        raise UserError(
            f"lm.weights={name}: {directory} has SHA-256 {found}, but {folder / 'base.json'} says {begun}: {remedy}"
        )
    if is_main() or not (note := _note(folder)):
        return
    for file, (size, _) in note["files"].items():
        if not (directory / file).is_file() or (directory / file).stat().st_size != size:
            raise UserError(
                f"lm.weights={name}: {directory / file} does not have the {size} bytes that process 0 sees: {remedy}"
            )


def _note(folder: Path) -> Any:
    return read_json(folder / WEIGHTS_NOTE) if (folder / WEIGHTS_NOTE).is_file() else None
