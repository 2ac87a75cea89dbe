"""Zip and gzip files, read by the standard library; whatever it finds wrong becomes an error that names the file.

Members are read into memory and never extracted, so that a member's path never reaches the file system. What a file unpacks to
is bounded: a member of a zip by `DEFAULT_LIMIT`, a gzipped file by `MOST_TIMES` its own size, so that a few kilobytes cannot
fill a disk or a memory, and a line by `LONGEST_LINE`.
"""

import gzip
import io
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from delrec_jax.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DEFAULT_LIMIT = 4 << 30
"""Bytes that a member may hold unpacked: several times the largest raw file that a reader takes from a zip."""

MOST_TIMES = 100
"""How many times its own size a gzipped file may hold unpacked; text reaches 20, nothing but zeros 1000."""

ALWAYS = 1 << 28
"""Bytes that any gzipped file may hold unpacked: a short file of equal lines is no attack."""

LONGEST_LINE = 1 << 26
"""Bytes of a line, which is read as a whole; the longest of the known dumps have a few hundred kilobytes."""

_CHUNK = 1 << 20
_LISTED = 20
_GZIP_MAGIC = b"\x1f\x8b"
# zipfile unpacks these piece by piece; of bzip2 and LZMA, one piece of a megabyte can hold a terabyte.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# A damaged header makes zipfile raise many things: an unknown format version, a name that no codec reads, an encrypted
# member (RuntimeError), an offset before the start of the file.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError)


def read_member(archive: Path, name: str, *, limit: int = DEFAULT_LIMIT) -> bytes:
    """The content of one file of a zip archive.

    Args:
      archive: A .zip file.
      name: The member's path or its last parts: "ml-100k/u.data" or "u.data". An exact path takes precedence.
      limit: The most bytes that the member may hold unpacked.

    Returns:
      The unpacked bytes; their checksum (CRC-32) is right.

    Raises:
      UserError: if the archive is missing, not a zip or damaged, if no member or several match, or if the member is
        encrypted, too large, damaged, or packed by another method than zip's usual one.
    """
    place, fault = str(archive), "not a zip archive, or damaged"
    try:
        with zipfile.ZipFile(archive) as opened:
            member = _find(archive, opened.infolist(), name)
            place, fault = f"{archive}, member {member.filename!r}", "damaged"
            if member.file_size > limit:
                raise UserError(
                    f"{place}: {member.file_size:,} bytes unpacked, above the limit of {limit:,}; check that this is the "
                    "right archive"
                )
            if member.compress_type not in _METHODS:
                raise UserError(
                    f"{place}: packed by method {member.compress_type}, and only zip's usual one (8, deflate) is read; pack "
                    "the archive again with zip"
                )
            content = io.BytesIO()
            with opened.open(member) as file:
                # zipfile stops at the declared size, but one large read would unpack gigabytes before it does.
                shutil.copyfileobj(file, content, _CHUNK)
            return content.getvalue()
    except FileNotFoundError as error:
        raise UserError(f"{archive}: no such file; give the path of a .zip archive") from error
    except _DAMAGE as error:
        raise UserError(
            f"{place}: {fault} ({str(error) or 'the data end too early'}); fetch the archive again, or pack it again with zip"
        ) from error


@contextmanager
def open_lines(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading as bytes, unpacked on the fly where it is gzipped.

    Its first bytes tell whether it is gzipped: browsers and servers unpack .gz files and keep the name. `lines_of` iterates
    over its lines.

    Args:
      path: A plain or gzipped file.

    Yields:
      A binary file; reading it raises UserError where the gzip data end too early, are damaged, or unpack to more than the
      limit.

    Raises:
      UserError: if the file is missing or cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); correct the path or the file's permissions"
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


def read_whole(path: Path, *, limit: int = DEFAULT_LIMIT) -> bytes:
    """The content of a file, unpacked where it is gzipped.

    Raises:
      UserError: as `open_lines`, or if it holds more than `limit` bytes.
    """
    content = io.BytesIO()
    with open_lines(path) as file:
        while piece := file.read(_CHUNK):
            if content.write(piece) and content.tell() > limit:
                raise UserError(
                    f"{path}: more than {limit:,} bytes unpacked, the limit; check that this is the right file"
                )
    return content.getvalue()


def lines_of(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file that `open_lines` has opened, each with its line end.

    Raises:
      UserError: at a line that is longer than `LONGEST_LINE`, before it is read to its end.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{path}, line {number}: more than {LONGEST_LINE:,} bytes in one line, which no dump of records has; check "
                "that this is the right file"
            )
        yield line


class _CheckedGzip(io.RawIOBase):
    """Reads on behalf of a buffer and names the damaged file, wherever in the reader's code the damage shows."""

    def __init__(self, path: Path, unpacked: gzip.GzipFile):
        self.path, self.unpacked = path, unpacked
        self.read_so_far, self.limit = 0, max(ALWAYS, MOST_TIMES * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        try:
            count = self.unpacked.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"{self.path}: the gzip data are cut short or damaged ({error}); fetch the file again"
            ) from error
        self.read_so_far += count
        if self.read_so_far > self.limit:
            raise UserError(
                f"{self.path}: more than {self.limit:,} bytes unpacked, {MOST_TIMES} times its own size, which no dump of "
                "records has; check that this is the right file, or unpack it yourself"
            )
        return count


def _find(archive: Path, members: list[zipfile.ZipInfo], name: str) -> zipfile.ZipInfo:
    """The one member that `name` means: by its full path, else by the end of its path."""
    # Some Windows tools write backslashes.
    files = {
        member: member.filename.replace("\\", "/") for member in members if not member.is_dir()
    }
    found = [member for member, path in files.items() if path == name] or [
        member for member, path in files.items() if path.endswith("/" + name)
    ]
    if len(found) == 1:
        return found[0]
    listed = [member.filename for member in (found or files)]
    rest = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    if found:
        raise UserError(
            f"{archive}: {len(found)} members are named {name!r}: {listed[:_LISTED]}{rest}; name one by its full path, or pack "
            "the archive again without the others"
        )
    raise UserError(
        f"{archive}: no member {name!r} among {listed[:_LISTED]}{rest}; give the archive that has it"
    )
