"""A workdir in a bucket: a local folder that begins as the bucket is, and whose changes are put there.

Whatever moment a machine is lost at, what the bucket then has is a workdir to resume from. Therefore a marker that no longer
holds is deleted before any other file of its stage changes, and a new one comes after all of them; and a checkpoint counts only
if it has Orbax's own file about it, which comes last too.
"""

import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from delrec_jax.files import COARSE_TIMES, whole
from delrec_jax.training.writers import say
from delrec_jax.workdir.bucket import NEW, Bucket, Stored, checksum
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.kept_files import MARKER
from delrec_jax.workdir.lease import LEASE, Lease

_COMMIT = "_CHECKPOINT_METADATA"
_STEP = re.compile(r"(?:.*/)?checkpoints/\d+(?=/)")
_UNFINISHED = ".orbax-checkpoint-tmp"
_AT_ONCE = 8  # transfers; the library keeps ten connections open


@dataclass(frozen=True)
class _Local:
    """A file as it was when its checksum was computed."""

    state: tuple[int, int, int]
    crc32c: str
    settled: bool  # a later change would show in `state`

    def same(self, stored: Stored | None) -> bool:
        """Whether the bucket has it."""
        return stored is not None and (self.state[0], self.crc32c) == (stored.size, stored.crc32c)


def belongs(name: str) -> bool:
    """Returns whether a file or object of this relative name is part of a workdir: no lock, lease or file in progress."""
    parts = name.split("/")
    return name != LEASE and all(
        part and not part.startswith(".") and _UNFINISHED not in part for part in parts
    )


def checkpoint_of(name: str) -> str:
    """Returns the folder of the checkpoint that a file is part of; "" if it is part of none."""
    found = _STEP.match(name)
    return found[0] if found else ""


def whole_names(names: Iterable[str]) -> set[str]:
    """Returns the names without those of checkpoints that are not completely there."""
    names = set(names)
    return {
        name for name in names if not (step := checkpoint_of(name)) or f"{step}/{_COMMIT}" in names
    }


def fetch(bucket: Bucket, folder: Path, *, checkpoints: bool = True) -> dict[str, Stored]:
    """Makes a local folder equal to what the bucket has; hidden files stay.

    Args:
      bucket: what is read.
      folder: what is written.
      checkpoints: whether checkpoints too; otherwise those of the folder are left as they are.

    Returns:
      The objects of the workdir, incomplete checkpoints included.

    Raises:
      UserError: the bucket cannot be read, or changes meanwhile.
    """
    stored = {name: found for name, found in bucket.list().items() if belongs(name)}
    wanted = {n for n in whole_names(stored) if checkpoints or not checkpoint_of(n)}
    present = _names(folder)
    for name in present - wanted:
        if checkpoints or not checkpoint_of(name):
            (folder / name).unlink()
    _remove_empty(folder)
    missing = {n for n in wanted if not (n in present and _scanned(folder / n).same(stored[n]))}

    def get(name: str) -> None:
        with whole(folder / name) as partial:
            bucket.get(name, partial, stored[name].generation)

    if missing:
        size = sum(stored[name].size for name in missing)
        say(f"{bucket.url}: {len(missing)} files ({size / 1e6:.1f} MB) are fetched")
    _each(get, missing)
    return stored


class Mirror:
    """The bucket's copy of a local folder, which only the holder of the lease changes."""

    def __init__(self, bucket: Bucket, folder: Path, lease: Lease):
        """Makes the folder equal to the bucket.

        Raises:
          UserError: as in `fetch`.
        """
        self._bucket, self._folder, self._lease = bucket, folder, lease
        self._stored = fetch(bucket, folder)
        self._markers = {n: read_json(folder / n) for n in self._stored if _is_marker(n)}
        self._seen: dict[str, _Local] = {}

    def put(self) -> None:
        """Makes the bucket equal to the folder, in an order in which it can be left at any moment.

        Raises:
          UserError: the lease was lost, the bucket cannot be written, or somebody else has changed it.
        """
        self._lease.check()
        local = self._scan()
        changed = {n for n in local if not local[n].same(self._stored.get(n))}
        gone = self._stored.keys() - local.keys()
        torn = {f"{checkpoint_of(n)}/{_COMMIT}" for n in changed & self._stored.keys()}
        self._delete({n for n in changed | gone if _is_marker(n) and self._misleads(n)})
        self._delete(torn)
        self._put({n for n in changed if not _is_marker(n) and not _is_commit(n)})
        self._put({n for n in local if _is_commit(n) and not local[n].same(self._stored.get(n))})
        self._delete({n for n in gone if _is_commit(n)})
        self._delete(gone)
        self._put({n for n in local if _is_marker(n) and not local[n].same(self._stored.get(n))})

    def _misleads(self, marker: str) -> bool:
        """Whether the bucket's marker does not hold for what the files are about to be."""
        before, now = self._markers.get(marker, {}), self._folder / marker
        if before.get("finished") or not now.exists():
            return True
        fingerprint = read_json(now).get("fingerprint")
        return bool(before.get("fingerprint") != fingerprint)

    def _scan(self) -> dict[str, _Local]:
        found = {n: _scanned(self._folder / n, self._seen.get(n)) for n in _names(self._folder)}
        self._seen = found
        return found

    def _put(self, names: set[str]) -> None:
        def put(name: str) -> None:
            before = self._stored.get(name)
            generation = before.generation if before else NEW
            self._stored[name] = self._bucket.put(name, self._folder / name, generation)
            if _is_marker(name):
                self._markers[name] = read_json(self._folder / name)

        _each(put, names)

    def _delete(self, names: set[str]) -> None:
        def delete(name: str) -> None:
            self._bucket.delete(name, self._stored[name].generation)
            del self._stored[name]

        _each(delete, names & self._stored.keys())


def _is_marker(name: str) -> bool:
    return name.endswith(f"/{MARKER}")


def _is_commit(name: str) -> bool:
    return name == f"{checkpoint_of(name)}/{_COMMIT}"


def _each(action: Callable[[str], None], names: Iterable[str]) -> None:
    """Does it for all names, several at once; the first error ends it."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        tasks = [pool.submit(action, name) for name in sorted(names)]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _names(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {name for path in paths if belongs(name := path.relative_to(folder).as_posix())}


def _scanned(path: Path, before: _Local | None = None) -> _Local:
    """A file's size and checksum; that of before if nothing was written to it since."""
    found = path.stat()
    state = (found.st_size, found.st_mtime_ns, found.st_ino)
    if before and before.settled and before.state == state:
        return before
    began = time.time_ns()
    return _Local(state, checksum(path), settled=found.st_mtime_ns < began - COARSE_TIMES)


def _remove_empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
