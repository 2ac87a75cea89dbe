"""What was written, to compare with what is read: Orbax notices a file that is cut short, but not every bit that has changed.

A checkpoint has the SHA-256 of its files in `sums.json`, written before it gets its name. Those of earlier versions have none
and are read as they are. A tree of arrays is described by the types and shapes of its leaves.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from delrec_jax.distributed import as_main_sees, is_main, wait_for_all
from delrec_jax.errors import UserError
from delrec_jax.files import file_hash, write_text
from delrec_jax.training.sharding import key_names
from delrec_jax.training.writers import say

SUMS = "sums.json"
ASIDE = "damaged_checkpoints"
UNFINISHED = ".orbax-checkpoint-tmp"

# Orbax writes these itself, some of them later; nothing that is restored depends on them.
_ABOUT = ("_CHECKPOINT_METADATA", "commit_success.txt")


def write_sums(folder: Path, step: int) -> None:
    """Writes the sums of a checkpoint's files.

    Args:
      folder: the checkpoint, complete.
      step: its number.
    """
    found = {
        str(file.relative_to(folder)): file_hash(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in (*_ABOUT, SUMS)
    }
    write_text(folder / SUMS, json.dumps({"step": step, "files": found}, indent=1))


def damage(folder: Path) -> str:
    """Returns which file of a checkpoint is not as it was written, and what is wrong with it; "" if all are, or none tells.

    Args:
      folder: the checkpoint, named after its step.
    """
    path = folder / SUMS
    if not path.exists():
        return ""
    try:
        told = json.loads(path.read_text())
        step, files = int(told["step"]), dict(told["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path} cannot be read ({type(error).__name__})"
    if step != int(folder.name):
        return f"{path} is that of step {step}"
    for name, expected in files.items():
        file = folder / name
        try:
            same = file_hash(file) == expected
        except FileNotFoundError:
            return f"{file} is missing"
        except OSError as error:
            return f"{file} cannot be read ({error.strerror})"
        if not same:
            return f"{file} is not as it was written (its SHA-256 differs)"
    return ""


def tidy(directory: Path) -> None:
    """Moves damaged checkpoints out of their directory, and says so; removes what interrupted saves left.

    All processes must call it. Orbax leaves what an interrupted save wrote, which may be as large as a checkpoint.

    Raises:
      UserError: there are no others to go on from.
      OSError: one cannot be moved or removed.
    """
    steps = [path for path in directory.glob("*") if path.name.isdigit()] if is_main() else []
    found = {path: damage(path) for path in steps}
    damaged = {path: wrong for path, wrong in found.items() if wrong}
    if as_main_sees(lambda: bool(damaged) and len(damaged) == len(found)):
        wrong = next(iter(damaged.values()), f"{directory}: damaged, as process 0 says")
        raise UserError(
            f"{wrong}, and there is no other checkpoint: restore it from a copy, or remove {directory} and start the same "
            "command again to train from the beginning"
        )
    for left in directory.glob(f"*{UNFINISHED}*") if is_main() else ():
        shutil.rmtree(left)
    for path, wrong in damaged.items():
        place = directory.with_name(ASIDE) / path.name
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        path.rename(place)
        say(f"{wrong}: the checkpoint of step {path.name} is not used, and is now in {place}")
    wait_for_all()


def described(tree: Any) -> dict[str, str]:
    """Returns the type and shape of each leaf of a tree of arrays by its path, such as `params/w: float32 [4, 6]`."""
    return {
        "/".join(key_names(path)): f"{np.dtype(leaf.dtype).name} {list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def check_described(place: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Refuses a stored tree without the expected leaves.

    Args:
      place: where it is stored, for the message.
      found: `described` of what is stored.
      wanted: `described` of what is expected.

    Raises:
      UserError: names the first parameter that is missing, surplus, or of another type or shape.
    """
    wrong = [f"no parameter {name} ({wanted[name]})" for name in wanted if name not in found]
    wrong += [
        f"a parameter {name} ({found[name]}) that nothing reads"
        for name in found
        if name not in wanted
    ]
    wrong += [
        f"{name} of {found[name]} in place of {wanted[name]}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    if wrong:
        more = f", and {len(wrong) - 1} differences more" if len(wrong) > 1 else ""
        raise UserError(
            f"{place}: holds {wrong[0]}{more}: it belongs to other settings or to another version, or it was changed; restore "
            "it from a copy, or remove the folder that it is in and start the same command again"
        )
