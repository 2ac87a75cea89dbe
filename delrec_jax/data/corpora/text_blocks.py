"""Separated text in blocks of whole rows, checked byte by byte and made plain for a parser.

A block is UTF-8 with line feeds and a one-byte separator, whatever the file has. All that is off in it is an error with
file, line and remedy. Positions of bytes are found by NumPy, so a block costs milliseconds and no Python loop.
"""

import dataclasses
from collections.abc import Iterator
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import Int64

from delrec_jax.errors import UserError

_READ = 1 << 24
_STAND_IN = b"\x1f"  # ASCII's unit separator, for separators of several characters
_NAMES = {"\t": "tab-", ",": "comma-"}


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """How rows are written.

    Attributes:
      separator: One or more ASCII characters between fields.
      quoted: Whether fields may stand in double quotes as in RFC 4180 (with separators and line ends inside, and a quote
        written twice); otherwise a quote is a character like any other.
      encoding: "utf-8", with or without a byte-order mark, or "latin-1".
    """

    separator: str = "\t"
    quoted: bool = False
    encoding: Literal["utf-8", "latin-1"] = "utf-8"

    @property
    def byte(self) -> bytes:
        """The separator inside blocks."""
        return self.separator.encode() if len(self.separator) == 1 else _STAND_IN

    @property
    def fields(self) -> str:
        """What errors call the fields of a row."""
        return f"{_NAMES.get(self.separator, repr(self.separator) + '-')}separated fields"


@dataclasses.dataclass(frozen=True)
class Block:
    """Whole rows of a file.

    Attributes:
      name: Of the file, for errors.
      form: Its format.
      content: The rows, each with its line feed, but perhaps the file's last.
      first_line: The number of the first line, from 1.
    """

    name: str
    form: TextFormat
    content: bytes
    first_line: int

    def line(self, position: int) -> int:
        """The number of the line that a byte of the block is in."""
        return self.first_line + self.content.count(b"\n", 0, position)

    def split_first_row(self) -> tuple[bytes, "Block"]:
        """The first line and the block behind it."""
        first, _, rest = self.content.partition(b"\n")
        return first, dataclasses.replace(self, content=rest, first_line=self.first_line + 1)


def read_blocks(handle: BinaryIO, name: str, form: TextFormat) -> Iterator[Block]:
    """All rows of a file, without the empty lines at its end.

    Args:
      handle: The file's bytes.
      name: Of the file, for errors.
      form: Its format.

    Raises:
      UserError: for NUL bytes, another encoding, or a control character that the reader needs.
    """
    line, rest = 1, b""
    while chunk := handle.read(_READ):
        rest = (rest + chunk).replace(b"\r\n", b"\n")
        if line == 1:
            rest = rest.removeprefix(b"\xef\xbb\xbf")
        end = _end_of_whole_rows(rest, form)
        if end:
            yield _plain(Block(name, form, rest[:end], line))
            line += rest.count(b"\n", 0, end)
            rest = rest[end:]
    rows = rest.rstrip(b"\n")
    if len(rows) < len(rest):
        rows += b"\n"
    if rows:
        yield _plain(Block(name, form, rows, line))


def count_rows(block: Block, expected: int, *, expected_by: str) -> int:
    """The number of a block's rows, each of which must have the expected number of fields.

    Args:
      block: The rows.
      expected: Fields a row.
      expected_by: Who says so, for the error: "the header".

    Raises:
      UserError: naming the first line with another number of fields, or a misplaced quote.
    """
    data = np.frombuffer(block.content, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    separators = np.flatnonzero(data == block.form.byte[0])
    if block.form.quoted and b'"' in block.content:
        quotes = np.flatnonzero(data == ord('"'))
        _check_quotes(block, quotes)
        ends, separators = _outside(ends, quotes), _outside(separators, quotes)
    if not block.content.endswith(b"\n"):
        ends = np.append(ends, len(data))
    found = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    wrong = np.flatnonzero(found != expected)
    if len(wrong):
        start = int(ends[wrong[0] - 1]) + 1 if wrong[0] else 0
        raise UserError(
            f"{block.name}, line {block.line(start)}: {found[wrong[0]]} {block.form.fields}, {expected_by} has {expected}; "
            f"correct or remove the line ({_hint(block.form)})"
        )
    return len(ends)


def _hint(form: TextFormat) -> str:
    if form.quoted:
        return "a field with a separator in it must stand in double quotes"
    return f"a {_NAMES.get(form.separator, '').rstrip('-') or repr(form.separator)} inside a title must become a space"


def _end_of_whole_rows(content: bytes, form: TextFormat) -> int:
    """The end of the last row that is surely whole; empty lines may be the file's end and are kept back."""
    end = content.rfind(b"\n", 0, len(content.rstrip(b"\n"))) + 1
    if not form.quoted or content.count(b'"', 0, end) % 2 == 0:
        return end
    data = np.frombuffer(content, np.uint8, end)
    ends = _outside(np.flatnonzero(data == ord("\n")), np.flatnonzero(data == ord('"')))
    return int(ends[-1]) + 1 if len(ends) else 0


def _plain(block: Block) -> Block:
    """The same rows in UTF-8 with a one-byte separator, and surely text."""
    content, form = block.content, block.form
    if (zero := content.find(b"\0")) >= 0:
        raise UserError(
            f"{block.name}, line {block.line(zero)}: a NUL byte; the file is damaged or not text, save it again as "
            f"{form.encoding.upper()}"
        )
    if not content.isascii():
        content = _as_utf8(block)
    if form.byte == _STAND_IN:
        if (strange := content.find(_STAND_IN)) >= 0:
            raise UserError(
                f"{block.name}, line {block.line(strange)}: a control character 0x1f; remove it"
            )
        content = content.replace(form.separator.encode(), _STAND_IN)
    return dataclasses.replace(block, content=content)


def _as_utf8(block: Block) -> bytes:
    if block.form.encoding == "latin-1":
        return block.content.decode("latin-1").encode()
    try:
        block.content.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{block.name}, line {block.line(error.start)}: byte 0x{block.content[error.start]:02x} is not valid UTF-8; "
            "convert the file, for example with iconv -t UTF-8"
        ) from error
    return block.content


def _outside(
    positions: Int64[np.ndarray, "P"], quotes: Int64[np.ndarray, "Q"]
) -> Int64[np.ndarray, "_"]:
    """The positions that are not within a pair of quotes; a doubled quote closes and opens again."""
    return positions[np.searchsorted(quotes, positions) % 2 == 0]


def _check_quotes(block: Block, quotes: Int64[np.ndarray, "Q"]) -> None:
    """Quotes must enclose a whole field, or be doubled inside such a field."""
    border = b"\n" + block.content + b"\n"  # so that each quote has a neighbour on either side
    data = np.frombuffer(border, np.uint8)
    fits = np.zeros(256, bool)
    fits[[ord("\n"), ord('"'), block.form.byte[0]]] = True
    opens, closes = quotes[0::2], quotes[1::2]
    wrong = ~fits[data[opens]]
    wrong[: len(closes)] |= ~fits[data[closes + 2]]
    wrong[len(closes) :] = True  # never closed
    if wrong.any():
        line = block.line(int(opens[np.argmax(wrong)]))
        raise UserError(
            f'{block.name}, line {line}: a double quote (") that is not closed, or stands inside a field without quotes; '
            'put the whole field in quotes and write a quote inside it twice ("")'
        )
