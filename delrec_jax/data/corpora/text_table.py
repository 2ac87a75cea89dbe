"""Strict reading of separated text: every row has the expected fields, and a fault is named by file, line and column."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from delrec_jax.data.corpora.text_rows import Rows, TextFormat, split_rows
from delrec_jax.errors import UserError

_LATEST_TIME = 2**53  # in microseconds the year 2255; exact as a float too

_INVISIBLE = "[\u00ad\u200b\u2060\ufeff]"  # the last one is left where files with a byte-order mark were put together

HeaderParser = Callable[[str, list[str]], list[str]]


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A file as columns of text.

    Attributes:
      name: Of the file, for errors.
      frame: String columns, "" where a field is empty; rows in the file's order.
      lines: The line on which each row begins (a quoted field may span several), or the row's number.
      unfinished: Whether the last line has no line end: the file may have been cut there.
      counted: What `lines` counts.
    """

    name: str
    frame: pl.DataFrame
    lines: pl.Series
    unfinished: bool
    counted: str = "line"

    def place(self, row: int, column: str) -> str:
        """The beginning of an error: `FILE, line 7, column 'rating'`."""
        return f"{self.name}, {self.counted} {self.lines[row]}, column {column!r}"

    def require(self, *columns: str) -> None:
        """Checks that columns exist and that none of their cells is blank.

        Raises:
          UserError: naming the first missing column or blank cell.
        """
        for column in columns:
            if column not in self.frame.columns:
                raise UserError(
                    f"{self.name}, {self.counted} 1: no column {column!r} among {shown(self.frame.columns)}; add it, or "
                    "correct its name in the header"
                )
            blank = (self.frame[column].str.strip_chars() == "").arg_true()
            if len(blank):
                raise UserError(
                    f"{self.place(blank[0], column)}: empty cell; fill it in or remove the line"
                )

    def require_ids(self, *columns: str) -> None:
        """Checks as `require` does, and that no cell has white space around it: "7 " would be somebody else than "7".

        Raises:
          UserError: naming the first such cell.
        """
        self.require(*columns)
        for column in columns:
            ids = self.frame[column]
            odd = (ids != ids.str.strip_chars()).arg_true()
            if len(odd):
                raise UserError(
                    f"{self.place(odd[0], column)}: {shown(ids[odd[0]])} has white space around it, so it would be another id; "
                    "remove it"
                )
            unseen = ids.str.contains(_INVISIBLE).arg_true()
            if len(unseen):
                raise UserError(
                    f"{self.place(unseen[0], column)}: {ascii(ids[unseen[0]])[:80]} has a character that cannot be seen, so it "
                    "would be another id; remove it"
                )

    def numbers(self, column: str) -> pl.Series:
        """A column of numbers: Int64 where all are written as integers, else Float64.

        Integers never pass through a float here.

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

    def ratings(self, column: str) -> pl.Series:
        """A column of ratings, Float64; null where a cell is empty, as those of views beside reviews are.

        Raises:
          UserError: naming the first cell that is neither empty nor a finite number.
        """
        text = self.frame[column].str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        bad = (
            ((numbers.is_null() & (text != "")) | ~numbers.is_finite()).fill_null(False).arg_true()
        )
        if len(bad):
            raise UserError(
                f"{self.place(bad[0], column)}: {shown(text[bad[0]])} is no rating: correct it, leave it empty, or give the "
                "column another name if it holds no ratings"
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
      name: The name used in errors; the path by default.
      form: Separator, quotes and encoding; tab-separated UTF-8 by default.
      columns: The names of the columns where the file has no header.
      parse_header: Makes column names of the file's name and the header's cells; `plain_header` by default.

    Returns:
      All columns as text.

    Raises:
      UserError: if the file is missing, empty or in another encoding, contains NUL bytes, has a bad header, or has a line
        with more or fewer fields than the header.
    """
    name, form = name or str(source), form or TextFormat()
    content = source if isinstance(source, bytes) else _read(source)
    blank = not content.strip(b" \t\r\n\xef\xbb\xbf")
    if not content or (blank and not columns):
        raise UserError(
            f"{name}: the file is empty; give {'rows' if columns else 'a header line and rows'}"
        )
    rows = split_rows(content, name, form)
    unfinished = not content.endswith(b"\n")
    if columns:
        frame = rows.columns(list(columns), expected_by="the format")
        return TextTable(name, frame, rows.lines, unfinished)
    header = rows.fields[0].to_list()
    names = _header(name, header, parse_header or plain_header)
    rows = rows.after_first()
    if not len(rows.lines):
        raise UserError(
            f"{name}, line 1: no rows below the header; give a file with data, and with line feeds as line ends"
        )
    frame = rows.columns(names, expected_by="the header")
    _refuse_second_header(rows, frame, header)
    return TextTable(name, frame, rows.lines, unfinished)


def plain_header(name: str, cells: list[str]) -> list[str]:
    """Column names as written, without surrounding white space.

    Raises:
      UserError: for an empty name.
    """
    names = [cell.strip() for cell in cells]
    if "" in names:
        raise UserError(
            f"{name}, line 1, column {names.index('') + 1}: empty column name; name every column"
        )
    return names


def folded(name: str) -> str:
    """Returns a column's name without capitals, underscores, hyphens and spaces: `userId`, `user_id` and `User ID` are one."""
    return "".join(letter for letter in name.lower() if letter not in "_- ")


def shown(value: object, longest: int = 80) -> str:
    """A value as errors show it: on one line, and cut if long."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def _read(path: Path) -> bytes:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: a pipe or a device; give a file")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; correct the path, or put the file there") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a readable file"
        ) from error


def _header(name: str, cells: list[str], parse: HeaderParser) -> list[str]:
    """The names of the columns, each one once."""
    if not any(cell.strip() for cell in cells):
        raise UserError(f"{name}, line 1: blank; the first line must name the columns")
    names = parse(name, cells)
    for position, column in enumerate(names):
        if column in names[:position]:
            raise UserError(
                f"{name}, line 1: column {shown(column)} occurs twice; rename or remove one"
            )
    return names


def _refuse_second_header(rows: Rows, frame: pl.DataFrame, header: list[str]) -> None:
    """Files that were put together have their header among the rows."""
    for row in (frame.to_series() == header[0]).arg_true():
        if list(frame.row(row)) == header:
            raise UserError(
                f"{rows.name}, line {rows.lines[row]}: the header again; remove the line"
            )
