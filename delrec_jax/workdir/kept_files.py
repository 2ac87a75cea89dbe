"""What a finished stage left, by hash in its `stage.json`: what is damaged, exchanged or lost since is named, not read.

A bit that flips in a file of numbers gives other numbers. What is kept only to resume (checkpoints), what is only looked at
(logs, pages), and what carries a hash of its own is left out, as is what later commands may write beside it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delrec_jax.errors import UserError
from delrec_jax.files import file_hash, json_hash

MARKER = "stage.json"
WEIGHTS_NOTE = "weights_seen.json"
"""Where `weight_files` notes which weights it has hashed."""
SO_FAR = "so_far"
"""Folder of what an interrupted evaluation has ranked (`ranked_so_far`)."""

_READ = (".safetensors", ".npz", ".parquet", ".json")
_CORPUS = "corpus"  # TFDS names its files with a number at the end
_OTHERS = (MARKER, "title_vectors.npz", WEIGHTS_NOTE)
_RESUMING = ("checkpoints", "tensorboard", "profile", SO_FAR)
_TYPES = {"fingerprint": str, "finished": bool, "content": str, "judged_by": dict, "files": dict}


def hashes(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 (hex) of each file of a stage that other stages read, by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        read = path.suffix in _READ or _CORPUS in name.parts
        unfinished = any(part.startswith(".") or part in _RESUMING for part in name.parts)
        if read and not unfinished and path.name not in _OTHERS and path.is_file():
            found[name.as_posix()] = file_hash(path)
    return found


def check(folder: Path, files: Mapping[str, str], *, stage: str) -> None:
    """Checks that files of a finished stage are as it left them.

    Args:
      folder: the stage's folder.
      files: what `hashes` returned when it was finished.
      stage: its name, for the remedy.

    Raises:
      UserError: a file is missing, cannot be read or has changed.
    """
    remedy = f"put back a copy of it, or delete {folder.resolve()} and run `delrec {stage}` again"
    for name, expected in files.items():
        path = folder / name
        try:
            found = file_hash(path)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}), although {stage} left it there; {remedy}"
            ) from error
        if found != expected:
            raise UserError(
                f"{path}: damaged or changed: its SHA-256 is {found[:12]}, {MARKER} says {expected[:12]}; {remedy}"
            )


def sealed(marker: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a marker with a hash of itself."""
    return {**marker, "seal": _seal(marker)}


def checked(path: Path, found: Any, *, newest: int) -> dict[str, Any]:
    """Returns the content of a marker; those of earlier versions have no seal.

    Raises:
      UserError: it is none, was changed since it was written, or has a later format than `newest`.
    """
    number = found.get("format", newest) if isinstance(found, dict) else newest
    if type(number) is not int or number > newest:
        raise UserError(
            f"{path}: results of format {number}, and this version of delrec_jax reads and writes format {newest}: upgrade "
            "delrec_jax, or give another --workdir"
        )
    known = isinstance(found, dict) and all(
        isinstance(found[key], kind) for key, kind in _TYPES.items() if key in found
    )
    if not known or "fingerprint" not in found or found.get("seal", _seal(found)) != _seal(found):
        raise UserError(
            f"{path}: damaged or changed since the stage wrote it; put back a copy of it, or delete {path.parent.resolve()} "
            "and run the stage again"
        )
    return dict(found)


def _seal(marker: Mapping[str, Any]) -> str:
    return json_hash({key: value for key, value in marker.items() if key != "seal"})
