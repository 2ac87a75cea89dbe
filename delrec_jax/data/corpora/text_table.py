"""Strict reading of separated text: one row a line, a known number of fields a row, every fault named by its line.

Files are read in blocks of whole rows, so memory holds the table and one block. Nothing loops over rows in Python, and a
place is worked out only when something is wrong there.
"""

import csv
import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import polars as pl

from delrec_jax.data.corpora.text_blocks import Block, TextFormat, count_rows, read_blocks
from delrec_jax.errors import UserError

_LATEST_TIME = 2**53  # in microseconds the year 2255; exact as a float too

HeaderParser = Callable[[str, list[str]], list[str]]


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A file as text columns.

    Attributes:
      name: Of the file, for errors.
      frame: String columns, "" where a field is empty; rows in the file's order.
      first_line: The line of the first row.
      unfinished: Whether the last line has no line end: it may have been cut there.
    """

    name: str
    frame: pl.DataFrame
    first_line: int
    unfinished: bool

    def line(self, row: int) -> int:
        """The line on which a row begins (fields in quotes may span several)."""
        before = self.frame.head(row)
        inside = sum(int(column.str.count_matches("\n").sum() or 0) for column in before)
        return self.first_line + row + inside

    def place(self, row: int, column: str) -> str:
        """`FILE, line 7, column 'rating'`, as errors begin."""
        return f"{self.name}, line {self.line(row)}, column {column!r}"

    def require(self, *columns: str) -> None:
        """Checks that columns exist and that none of their cells is blank.

        Raises:
          UserError: naming the first missing column or blank cell.
        """
        for column in columns:
            if column not in self.frame.columns:
                raise UserError(
                    f"{self.name}, line 1: no column {column!r} among {shown(self.frame.columns)}; add it, or correct its "
                    "name in the header"
                )
            blank = (self.frame[column].str.strip_chars() == "").arg_true()
            if len(blank):
                raise UserError(
                    f"{self.place(blank[0], column)}: empty cell; fill it in or remove the line"
                )

    def numbers(self, column: str) -> pl.Series:
        """A column of numbers: Int64 where all are whole numbers as written, else Float64.

        Epoch seconds do not fit float32, and whole numbers never pass through a float here.

        Raises:
          UserError: naming the first cell that is not a finite number.
        """
        text = self.frame[column].str.strip_chars()
        whole = text.cast(pl.Int64, strict=False)
        if whole.null_count() == 0:
            return whole
        numbers = text.cast(pl.Float64, strict=False)
        bad = (numbers.is_null() | ~numbers.is_finite()).fill_null(True).arg_true()
        if len(bad):
            raise UserError(
                f"{self.place(bad[0], column)}: {shown(text[bad[0]])} is not a finite number; correct it or remove the line"
            )
        return numbers

    def times(self, column: str) -> pl.Series:
        """A column of times: numbers from 0 to 2**53, Int64 or (with fractions) Float64.

        Raises:
          UserError: naming the first cell that is not such a number.
        """
        times = self.numbers(column)
        bad = ((times < 0) | (times > _LATEST_TIME)).arg_true()
        if len(bad):
            raise UserError(
                f"{self.place(bad[0], column)}: {shown(self.frame[column][bad[0]])} is not a time; give seconds since 1970, "
                "or positions from 0"
            )
        return times

    def require_unique(self, column: str) -> None:
        """Checks that no value occurs twice.

        Raises:
          UserError: naming the first line with a value that has a row already.
        """
        values = self.frame[column]
        if values.n_unique() < len(values):
            row = (~values.is_first_distinct()).arg_true()[0]
            raise UserError(
                f"{self.place(row, column)}: {shown(values[row])} has a row already; remove one of them"
            )


def read_text_table(
    source: Path | bytes,
    *,
    name: str = "",
    form: TextFormat | None = None,
    columns: Sequence[str] = (),
    parse_header: HeaderParser | None = None,
) -> TextTable:
    """Reads separated text, from a file or from bytes (a member of an archive).

    Args:
      source: The file or its content.
      name: What errors call it; the path by default.
      form: Separator, quotes and encoding; tab-separated UTF-8 by default.
      columns: The names of the columns where the file has no header.
      parse_header: File's name and header cells to column names; `plain_header` by default.

    Returns:
      All columns as text.

    Raises:
      UserError: if the file is missing, empty, in another encoding, holds NUL bytes, has a wrong header, or has a line with
        more or fewer fields than the header.
    """
    name, form = name or str(source), form or TextFormat()
    frames: list[pl.DataFrame] = []
    names, header = list(columns), None
    unfinished = False
    with _open(source, name) as handle:
        for block in read_blocks(handle, name, form):
            unfinished = not block.content.endswith(b"\n")
            if not names:
                header, block = _header(block)
                names = _unique(name, (parse_header or plain_header)(name, header))
            if block.content:
                frames.append(_parse(block, names, header))
    if not frames and header is None:
        raise UserError(
            f"{name}: the file is empty; give {'rows' if columns else 'a header line and rows'}"
        )
    if not frames:
        raise UserError(f"{name}: no rows below the header; give a file with data")
    return TextTable(name, pl.concat(frames), 1 if columns else 2, unfinished)


def plain_header(name: str, cells: list[str]) -> list[str]:
    """Column names as they are written, without blanks around them.

    Raises:
      UserError: for an empty name.
    """
    names = [cell.strip() for cell in cells]
    if "" in names:
        raise UserError(
            f"{name}, line 1, column {names.index('') + 1}: empty column name; name every column"
        )
    return names


def shown(value: object, longest: int = 80) -> str:
    """A value as errors show it: on one line, and cut if it is long."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def _open(source: Path | bytes, name: str) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return source.open("rb")
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file; correct the path, or put the file there") from error
    except OSError as error:
        raise UserError(
            f"{name}: cannot be read ({error.strerror}); give a readable file"
        ) from error


def _header(block: Block) -> tuple[list[str], Block]:
    line, rest = block.split_first_row()
    text = line.decode()
    if not text.strip():
        if not rest.content.strip():
            raise UserError(f"{block.name}: the file is empty; give a header line and rows")
        raise UserError(f"{block.name}, line 1: blank; the first line must name the columns")
    separator = block.form.byte.decode()
    if not block.form.quoted:
        return text.split(separator), rest
    try:
        return next(csv.reader([text], delimiter=separator, strict=True)), rest
    except csv.Error as error:
        raise UserError(
            f"{block.name}, line 1: the header cannot be read ({error}); correct its quotes"
        ) from error


def _unique(name: str, names: list[str]) -> list[str]:
    for position, column in enumerate(names):
        if column in names[:position]:
            raise UserError(
                f"{name}, line 1: column {shown(column)} occurs twice; rename or remove one"
            )
    return names


def _parse(block: Block, names: list[str], header: list[str] | None) -> pl.DataFrame:
    """One block as text columns; a header amid the rows (files put together) is refused."""
    rows = count_rows(block, len(names), expected_by="the header" if header else "the format")
    frame = pl.read_csv(
        block.content,
        separator=block.form.byte.decode(),
        quote_char='"' if block.form.quoted else None,
        has_header=False,
        schema=dict.fromkeys(names, pl.String),
    ).fill_null("")
    if len(frame) != rows:
        raise RuntimeError(f"{block.name}: {len(frame)} rows parsed of {rows}")
    if header is not None:
        repeated = (frame[names[0]] == header[0]).arg_true()
        for row in repeated:
            if list(frame.row(row)) == header:
                line = TextTable(block.name, frame, block.first_line, False).line(row)
                raise UserError(f"{block.name}, line {line}: the header again; remove the line")
    return frame
