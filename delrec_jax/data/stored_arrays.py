"""Arrays with a header in one file: written completely or not at all, and checked against their SHA-256 when read.

Splits and candidate sets are drawn once and read by every stage; a file that was truncated, altered or made by something else
must never be read as if it were the stored draw.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delrec_jax.errors import UserError
from delrec_jax.files import whole

REMEDY = "delete it and run `delrec prepare` again"

_HEADER, _HASH = "header", "hash"
# What numpy and zipfile raise on damaged files; RuntimeError: an entry that claims to be encrypted.
_DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def content_hash(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 (hex) of a header (JSON values) and of each array's name, type, shape and content."""
    digest = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def save_arrays(
    path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], *, stated_hash: str
) -> None:
    """Writes one `.npz` file; a partly written file never gets this name.

    Args:
      path: The file; its parent folders are created.
      header: Values that JSON can hold.
      arrays: Arrays by name; "header", "hash" and "file" are reserved.
      stated_hash: The `content_hash` of both, which the caller has computed.
    """
    texts = {_HEADER: np.array(json.dumps(dict(header))), _HASH: np.array(stated_hash)}
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **texts, **arrays)


def load_arrays(
    path: Path, what: str, *, header: Sequence[str], arrays: Sequence[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """Reads a file written by `save_arrays` and checks it against its hash.

    Args:
      path: The file.
      what: What it should hold, in words, such as "candidate file".
      header: Keys that the header must have, and no others.
      arrays: Names of the arrays.

    Returns:
      The header, the arrays by name, and the hash.

    Raises:
      UserError: the file is missing, unreadable, not of this kind, or was altered since it was written.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such {what}; run `delrec prepare` first")
    try:
        with np.load(path, allow_pickle=False) as stored:
            text, stated = str(stored[_HEADER]), str(stored[_HASH])
            found = {name: stored[name] for name in arrays}
        read = dict(json.loads(text))
    except _DAMAGE as error:
        raise UserError(
            f"{path}: not a readable {what} ({type(error).__name__}: {error}); {REMEDY}"
        ) from error
    if read.keys() != set(header):
        raise UserError(f"{path}: not a {what}: its header has {sorted(read)}; {REMEDY}")
    actual = content_hash(read, found)
    if actual != stated:
        raise UserError(
            f"{path}: the content has hash {actual[:12]}, the file states {stated[:12]}: "
            f"it was altered after it was written; {REMEDY}"
        )
    return read, found, stated
