"""Zip and gzip files of strangers: members are read into memory, and nothing is ever extracted.

So a member's path, whatever it says, never reaches the file system. What cannot be read is the user's to know of, by
archive and member.
"""

import gzip
import io
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from delrec_jax.errors import UserError

DEFAULT_LIMIT = 4 << 30
"""Bytes that a member may hold unpacked: several times the largest raw file that a reader takes from a zip."""

_CHUNK = 1 << 20
_ENCRYPTED = 0x1
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_LISTED = 20
# A damaged header makes zipfile raise what it comes upon: a format version that no one implements, a name that no codec
# reads, a place before the file's start.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    OSError,
    NotImplementedError,
)
_GZIP_MAGIC = b"\x1f\x8b"
_REMEDY = "fetch the archive again, or pack it again with zip"


def read_member(archive: Path, name: str, *, limit: int = DEFAULT_LIMIT) -> bytes:
    """The content of one file of a zip archive.

    Args:
      archive: A .zip file.
      name: The member's path or its last parts: "ml-100k/u.data" or "u.data". A member of exactly this path goes
        before others that only end with it.
      limit: Most bytes that the member may hold unpacked.

    Returns:
      The unpacked bytes; their checksum (CRC-32) holds.

    Raises:
      UserError: if the archive is missing, not a zip or damaged, no member or several match, or the member is a
        link, encrypted, packed by a method other than deflate, too large or damaged.
    """
    with _opened_zip(archive) as opened:
        member = _find(archive, opened.infolist(), name)
        _check_readable(archive, member, limit)
        content = io.BytesIO()
        try:
            with opened.open(member) as file:
                # In chunks: one large read would unpack gigabytes before it looks at the declared size, beyond which
                # zipfile gives nothing.
                shutil.copyfileobj(file, content, _CHUNK)
        except _DAMAGE as error:
            raise UserError(
                f"{archive}, member {member.filename!r}: damaged ({str(error) or 'the data end too early'}); {_REMEDY}"
            ) from error
        return content.getvalue()


@contextmanager
def open_lines(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading as bytes, unpacked on the fly where it is gzipped.

    Whether it is gzipped is told by its first bytes: browsers and servers unpack .gz files and keep the name.

    Args:
      path: A plain or gzipped file.

    Yields:
      A binary file that gives lines when iterated; reading it raises UserError where the gzip data end too early or
      are damaged.

    Raises:
      UserError: if the file is missing or cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); correct the path or the file's rights"
        ) from error
    with file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            # The buffer makes lines as fast as those of a plain file, which GzipFile's own are not.
            yield io.BufferedReader(_CheckedGzip(path, unpacked), _CHUNK)


class _CheckedGzip(io.RawIOBase):
    """Reads on behalf of a buffer and says which file is damaged, wherever in the reader's code it shows."""

    def __init__(self, path: Path, unpacked: gzip.GzipFile):
        self.path, self.unpacked = path, unpacked

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # any writable buffer: no public type before Python 3.12
        try:
            return self.unpacked.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"{self.path}: the gzip data are cut short or damaged ({error}); fetch the file again"
            ) from error


@contextmanager
def _opened_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    if not archive.is_file():
        raise UserError(f"{archive}: no such file; give the path of a .zip archive")
    try:
        opened = zipfile.ZipFile(archive)
    except _DAMAGE as error:
        raise UserError(f"{archive}: not a zip archive, or damaged ({error}); {_REMEDY}") from error
    with opened:
        yield opened


def _find(archive: Path, members: list[zipfile.ZipInfo], name: str) -> zipfile.ZipInfo:
    """The one member that `name` means: by its whole path, else by the end of its path."""
    # Some Windows tools write backslashes. A folder's path ends with a slash.
    paths = [(member.filename.replace("\\", "/"), member) for member in members]
    files = [(path, member) for path, member in paths if not path.endswith("/")]
    found = [member for path, member in files if path == name]
    found = found or [member for path, member in files if path.endswith("/" + name)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            f"{archive}: no member {name!r} among "
            f"{_listing([member for _, member in files])}; give the archive that has it"
        )
    raise UserError(
        f"{archive}: {len(found)} members are named {name!r}: {_listing(found)}; name one by "
        "its full path, or pack the archive again without the others"
    )


def _listing(members: list[zipfile.ZipInfo]) -> str:
    names = ", ".join(repr(member.filename) for member in members[:_LISTED])
    rest = len(members) - _LISTED
    return f"[{names}{f' and {rest} more' if rest > 0 else ''}]"


def _check_readable(archive: Path, member: zipfile.ZipInfo, limit: int) -> None:
    """Refuses by what the archive's directory says, before a byte is unpacked."""
    place = f"{archive}, member {member.filename!r}"
    if stat.S_ISLNK(member.external_attr >> 16):
        raise UserError(f"{place}: a symbolic link, not a file; pack the file itself")
    if member.flag_bits & _ENCRYPTED:
        raise UserError(f"{place}: encrypted; unpack it and pack it again without a password")
    if member.compress_type not in _METHODS:
        # The others' decompressors cannot be told to stop, so that a few bytes could fill the memory.
        raise UserError(
            f"{place}: compression method {member.compress_type} is not read; pack it again with "
            "deflate, zip's usual method"
        )
    if member.file_size > limit:
        raise UserError(
            f"{place}: {member.file_size:,} bytes unpacked, above the limit of {limit:,}; check that this is the "
            "right archive"
        )
