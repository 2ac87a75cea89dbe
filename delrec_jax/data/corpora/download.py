"""Files of the public corpora: fetched once, resumed where a connection broke, and known by their SHA-256.

Beside NAME in the cache lies NAME.sha256, in the form of the tool sha256sum; while a download is under way NAME.part
with what has come, NAME.part.origin with what it is a part of, and NAME.lock, held by the process that downloads.
"""

import contextlib
import dataclasses
import fcntl
from collections.abc import Iterator
from pathlib import Path

from delrec_jax.data.corpora.transfer import Part, complete, say
from delrec_jax.errors import UserError
from delrec_jax.files import file_hash


@dataclasses.dataclass(frozen=True)
class Resource:
    """A file that someone publishes.

    Attributes:
      url: Where it is, http or https.
      file_name: Its name in the cache and in the user's folder of raw files.
      sha256: Its SHA-256 in hexadecimal digits, "" where none is registered.
    """

    url: str
    file_name: str
    sha256: str = ""


def fetch(
    resource: Resource,
    directory: Path,
    *,
    manual_dir: Path | None = None,
    timeout: float = 30.0,
    attempts: int = 4,
    pause: float = 1.0,
) -> Path:
    """The path of a resource's file, downloaded if it is neither given by the user nor in the cache.

    A download that breaks off is taken up again where it stopped, by the next attempt and by the next call.

    Args:
      resource: What to fetch.
      directory: The cache.
      manual_dir: A folder of the user's that must have the file; then the network is never used.
      timeout: Seconds after which a connection that gives nothing is broken off.
      attempts: How often to try in all.
      pause: Seconds before the second attempt, doubled before each further one.

    Returns:
      The path of the whole file: its checksum is the registered one or, where none is, that of its download.

    Raises:
      UserError: if the user's folder lacks the file, a checksum differs, the server refuses it or breaks off each
        time, or the cache cannot be written.
    """
    if manual_dir is not None:
        return _given(resource, manual_dir)
    path = directory / resource.file_name
    with _disk(path):
        directory.mkdir(parents=True, exist_ok=True)
        if _is_cached(resource, path):
            return path
        with _lock(path):
            # Another process may have downloaded it while this one waited.
            if not _is_cached(resource, path):
                part = Part(path.with_name(path.name + ".part"), resource.url)
                complete(part, timeout=timeout, attempts=attempts, pause=pause)
                _accept(resource, part, path)
    return path


def _given(resource: Resource, folder: Path) -> Path:
    path = folder / resource.file_name
    if not path.is_file():
        raise UserError(
            f"{folder}: no file {resource.file_name!r}; download it from {resource.url} into this folder, or leave "
            "data.manual_dir empty to have it downloaded"
        )
    with _disk(path):
        digest = file_hash(path)
    if resource.sha256 and digest != resource.sha256.lower():
        raise UserError(
            f"{path}: SHA-256 is {digest}, expected {resource.sha256.lower()}; download it again from {resource.url}"
        )
    return path


def _is_cached(resource: Resource, path: Path) -> bool:
    """Whether the file is there; one that is not as it was downloaded is the user's to judge, so it is an error."""
    if not path.is_file():
        return False
    noted = _sidecar(path).read_text(errors="replace").split() if _sidecar(path).is_file() else []
    expected = resource.sha256.lower() or (
        noted[0] if noted else "unknown: no note of its download"
    )
    digest = file_hash(path)
    if digest != expected:
        raise UserError(
            f"{path}: changed since it was downloaded (SHA-256 is {digest}, expected {expected}); delete it to have "
            "it downloaded again, or set data.manual_dir to use a file of your own"
        )
    return True


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Says what is wrong with the disk: full, read-only, no permission."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: {error.strerror or error}; make room, correct the rights or name "
            "another folder; what has been downloaded is kept"
        ) from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Lets one process download at a time; the system frees the lock of a process that dies."""
    place = path.with_name(path.name + ".lock")
    with place.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{path.name}: another process downloads it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        # Who waits for this lock, or makes a new one, finds the file in the cache.
        place.unlink(missing_ok=True)


def _accept(resource: Resource, part: Part, path: Path) -> None:
    """Checks the whole file, notes its checksum and gives it its name."""
    digest = file_hash(part.path)
    if resource.sha256 and digest != resource.sha256.lower():
        part.discard()
        raise UserError(
            f"{part.url}: SHA-256 is {digest}, expected {resource.sha256.lower()}; the file was removed, run again to "
            "download it anew; if it differs again, the publisher changed it: get the earlier one and set data.manual_dir"
        )
    # First the note: a file without one is taken for a stranger.
    _sidecar(path).write_text(f"{digest}  {path.name}\n")
    part.finish(path)
