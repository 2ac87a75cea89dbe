"""Teacher lists on disk: made once per checkpoint, and refused for another checkpoint, other settings or other rows."""

import hashlib
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from delrec_jax.errors import UserError
from delrec_jax.files import whole
from delrec_jax.teachers.lists import ListSettings, TeacherLists

# What numpy and zipfile raise on damaged files; RuntimeError: an entry that claims to be encrypted.
_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class ListsKey:
    """What lists depend on; lists with another key are stale.

    Attributes:
      checkpoint: id of the teacher's checkpoint.
      settings: h, m and the seed.
      inputs: hash of the arrays that say whose lists these are, from `inputs_hash`.
    """

    checkpoint: str
    settings: ListSettings
    inputs: str


def inputs_hash(*arrays: np.ndarray | None) -> str:
    """SHA-256 of arrays with their shapes and types; identifies the rows that lists were made for."""
    digest = hashlib.sha256()
    for array in arrays:
        value = np.zeros(0) if array is None else np.ascontiguousarray(array)
        digest.update(f"{array is None} {value.dtype.str} {value.shape};".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def save_lists(path: Path, lists: TeacherLists, *, key: ListsKey) -> None:
    """Writes lists and their key to an npz file; the file is complete or absent, never partial."""
    header = {"key": asdict(key), "content": inputs_hash(lists.items, lists.scores)}
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, header=text, items=lists.items, scores=lists.scores)


def load_lists(path: Path, *, key: ListsKey) -> TeacherLists:
    """Reads lists that were made under `key`.

    Raises:
      UserError: the file is missing, damaged or altered, or belongs to another
        checkpoint, other settings or other histories. The caller may make them again.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            lists = TeacherLists(items=file["items"], scores=file["scores"])
        content, found = header["content"], header["key"]
    except _DAMAGE as error:
        raise UserError(f"{path}: cannot be read as teacher lists ({error}); delete it") from error
    if content != inputs_hash(lists.items, lists.scores):
        raise UserError(f"{path}: its content was altered after it was written; delete it")
    for name, value in asdict(key).items():
        if found.get(name) != value:
            raise UserError(
                f"{path}: made for {name} {found.get(name)}, asked for {value}; delete it to "
                "have it made again"
            )
    return lists
