"""Files that are either complete or absent, the hashes that identify them, and JSON files that others have written."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from delrec_jax.errors import UserError, one_line

COARSE_TIMES = 2 * 10**9
"""Nanoseconds: times of files are that coarse on some file systems."""

# Bytes. A file is read as a whole; the largest, the titles of ten million items, has less.
_LARGEST_OBJECT = 1 << 30


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a file or a directory its name only when it is complete: readers see the old one or the new one, never a part.

    Args:
      path: what the block makes; its parent folders are created. A directory can only replace an empty one.

    Yields:
      A temporary name in the same folder, for the block to write to. If the block raises, what it wrote is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id is in the name so that two processes that write the same file do not mix their content.
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
        raise


def refuse_url(path: str, what: str) -> None:
    """Refuses a URL where a folder is meant: as a path it would be a new folder here. A `Path` has one slash of the two left.

    Raises:
      UserError: it is one; `what` stands before it.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        raise UserError(f"{what}{path}: give a folder; a URL is none")


def refuse_foreign(folder: Path, mark: str, command: str) -> None:
    """Refuses a folder with files that a command did not write: it would put its own among them, and replace some.

    Args:
      folder: where it is to write.
      mark: the name of a file that it always writes; studies write such files too, but beside `study.json`.
      command: its name.

    Raises:
      UserError: there are files, and the mark is not among them, or they are a study's.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found = [name for name in names if name[0] != "."]
    if found and (mark not in names or "study.json" in names):
        raise UserError(
            f"--output={folder}: has files that `delrec {command}` did not write, such as {found[0]}; give another folder"
        )


def expanded(path: str | Path) -> Path:
    """Returns a path of the user's, `~` replaced.

    Raises:
      UserError: there is no such home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{path}: there is no such home directory; write the whole path, or set HOME"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, completely or not at all."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def file_hash(*paths: Path) -> str:
    """Returns the SHA-256 (hex) of a file's bytes, or of those of several files one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def json_hash(content: Any) -> str:
    """Returns the SHA-256 (hex) of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_object(file: Path, *, missing: str, remedy: str) -> dict[str, Any]:
    """Reads the object in a JSON file that may come from anywhere.

    Args:
      file: the file.
      missing: what to do if it is not there, for the message.
      remedy: what to do if it is damaged.

    Raises:
      UserError: no such file, or no JSON object in it.
    """
    try:
        if (size := file.stat().st_size) > _LARGEST_OBJECT:
            raise UserError(
                f"{file}: {size:,} bytes, and at most {_LARGEST_OBJECT:,} are read; {remedy}"
            )
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{file}: not there: {missing}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{file}: cannot be read as JSON ({one_line(error, most=200)}); {remedy}"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: holds no JSON object; {remedy}")
    return found
