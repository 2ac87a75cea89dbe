"""Separated text as rows of fields, each with the line on which it begins.

Polars splits plain rows and the standard library's `csv` splits those with quotes. Polars would pad a short row with nulls and
`csv` would accept a quote inside an unquoted field, so field counts and quotes are checked here.
"""

import csv
import dataclasses
import io
import re
from typing import Literal

import polars as pl

from delrec_jax.errors import UserError

_NAMES = {"\t": "tab", ",": "comma"}


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """How rows are written.

    Attributes:
      separator: One or more characters between fields; one where fields are quoted.
      quoted: Whether fields may be enclosed in double quotes as in RFC 4180 (with separators and line ends inside, and a
        quote written twice); otherwise a quote is a character like any other.
      encoding: "utf-8", with or without a byte-order mark, or "latin-1".
    """

    separator: str = "\t"
    quoted: bool = False
    encoding: Literal["utf-8", "latin-1"] = "utf-8"

    @property
    def separator_name(self) -> str:
        """What errors call the separator."""
        return _NAMES.get(self.separator, repr(self.separator))


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a file.

    Attributes:
      name: The file's name, for errors.
      form: The file's format.
      fields: The fields of each row, List(String).
      lines: The line on which each row begins, from 1.
    """

    name: str
    form: TextFormat
    fields: pl.Series
    lines: pl.Series

    def after_first(self) -> "Rows":
        """All rows but the first."""
        return dataclasses.replace(self, fields=self.fields[1:], lines=self.lines[1:])

    def columns(self, names: list[str], *, expected_by: str) -> pl.DataFrame:
        """The rows as columns of text.

        Args:
          names: The name of each column.
          expected_by: What sets the number of columns, for the error: "the header".

        Raises:
          UserError: naming the first row that has more or fewer fields.
        """
        counts = self.fields.list.len()
        wrong = (counts != len(names)).arg_true()
        if len(wrong):
            separator = self.form.separator_name
            remedy = (
                "a field with a separator in it must be enclosed in double quotes"
                if self.form.quoted
                else f"a {separator} inside a title must become a space"
            )
            raise UserError(
                f"{self.name}, line {self.lines[wrong[0]]}: {counts[wrong[0]]} {separator}-separated fields, {expected_by} "
                f"has {len(names)}; correct or remove the line ({remedy})"
            )
        return pl.DataFrame({name: self.fields.list.get(i) for i, name in enumerate(names)})


def split_rows(content: bytes, name: str, form: TextFormat) -> Rows:
    """Splits a file into rows and fields; blank lines at its end are left out.

    Args:
      content: The file's bytes.
      name: The file's name, for errors.
      form: The file's format.

    Raises:
      UserError: for NUL bytes, bytes that are not valid in the encoding, or a misplaced double quote in a quoted format.
    """
    text = _decode(content, name, form).rstrip("\n")
    if form.quoted and '"' in text:
        return Rows(name, form, *_quoted_rows(text, name, form.separator))
    rows = pl.Series([text]).str.split("\n").explode()
    lines = pl.int_range(1, len(rows) + 1, eager=True)
    return Rows(name, form, rows.str.split(form.separator), lines)


_NOT_TEXT = {
    b"\x1f\x8b": "compressed (gzip)",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "a parquet file",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
"""How files begin that are often taken for text."""


def _decode(content: bytes, name: str, form: TextFormat) -> str:
    """The file's text, with line feeds as line ends and without a byte-order mark."""
    for opening, what in _NOT_TEXT.items():
        if content.startswith(opening):
            raise UserError(f"{name}, line 1: {what}; save it as text in {form.encoding.upper()}")
    if (zero := content.find(b"\0")) >= 0:
        raise UserError(
            f"{name}, line {_line(content, zero)}: a NUL byte; the file is damaged or not text, save it again as "
            f"{form.encoding.upper()}"
        )
    try:
        text = content.decode(form.encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}, line {_line(content, error.start)}: byte 0x{content[error.start]:02x} is not valid UTF-8; convert "
            "the file, for example with iconv -t UTF-8"
        ) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if "\r" in text and "\n" not in text.rstrip("\n"):
        raise UserError(
            f"{name}, line 1: its lines end with a carriage return alone, as on old Macs; save it with usual line ends"
        )
    return text


def _line(content: bytes, position: int) -> int:
    return 1 + content.count(b"\n", 0, position)


def _quoted_rows(text: str, name: str, separator: str) -> tuple[pl.Series, pl.Series]:
    """The fields of each row, and the line on which it begins."""
    field = rf'(?:"(?:[^"]|"")*"|[^"\n{separator}]*)'
    well_quoted = re.compile(rf"{field}(?:{separator}{field})*\n?")
    source = list(io.StringIO(text, newline="\n"))
    reader = csv.reader(source, delimiter=separator, strict=True)
    cells: dict[str, list[int | str]] = {"line": [], "field": []}
    start, limit = 0, csv.field_size_limit(len(text) + 1)  # the limit is the whole process's
    try:
        for row in reader:
            written = "".join(source[start : reader.line_num])
            if '"' in written and not well_quoted.fullmatch(written):
                raise csv.Error
            cells["field"] += row or [""]
            cells["line"] += [start + 1] * max(1, len(row))
            start = reader.line_num
    except csv.Error as error:
        raise UserError(
            f'{name}, line {start + 1}: a double quote (") that is not closed, or is inside a field without quotes; put the '
            'whole field in quotes and write a quote inside it twice ("")'
        ) from error
    finally:
        csv.field_size_limit(limit)
    rows = pl.DataFrame(cells).group_by("line", maintain_order=True).agg("field")
    return rows["field"], rows["line"]
