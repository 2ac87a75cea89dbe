"""Reading one RecBole atomic file: a strict tab-separated table with typed column names.

Format: UTF-8 without quoting, one row a line, the first line naming the columns as
`field:type` with the types token, token_seq, float and float_seq. Line ends of Windows
are taken. Everything else that is off is an error with file, line, column and remedy.
"""

from pathlib import Path

import numpy as np
import polars as pl

from delrec_jax.errors import UserError

_TYPES = ("token", "token_seq", "float", "float_seq")


def read_table(path: Path) -> pl.DataFrame:
    """Reads a file as text columns named by field, without the types.

    Args:
      path: A `.inter` or `.item` file.

    Returns:
      One column of strings a field ("" where empty), rows in the file's order: row r is
      line r + 2 of the file.

    Raises:
      UserError: if the file is missing, empty, not UTF-8, holds NUL bytes, has a wrong
        header, or has a line with more or fewer fields than the header.
    """
    content = _read_text(path)
    header, _, body = content.partition(b"\n")
    fields = _parse_header(path, header.decode())
    if not body:
        raise UserError(f"{path}: no rows below the header; give a file with data")
    _check_field_counts(path, body, len(fields))
    table = pl.read_csv(
        body,
        separator="\t",
        quote_char=None,
        has_header=False,
        schema={name: pl.String for name in fields},
    )
    return table.fill_null("")


def require_columns(path: Path, table: pl.DataFrame, required: tuple[str, ...]) -> None:
    """Checks that columns exist and that none of their cells is empty.

    Raises:
      UserError: naming the first missing column or empty cell.
    """
    for name in required:
        if name not in table.columns:
            raise UserError(
                f"{path}, line 1: no column {name!r} among {table.columns}; "
                f"add it (the header's field is '{name}:TYPE')"
            )
        empty = np.flatnonzero(table[name].str.strip_chars().to_numpy() == "")
        if len(empty):
            raise UserError(
                f"{path}, line {empty[0] + 2}, column {name!r}: empty cell; fill it in or remove "
                "the line"
            )


def parse_numbers(path: Path, table: pl.DataFrame, name: str) -> pl.Series:
    """A column of numbers: int64 where all are whole numbers as written, else float64.

    Epoch seconds do not fit float32, and whole numbers never pass through a float here.

    Raises:
      UserError: naming the first cell that is not a finite number.
    """
    text = table[name].str.strip_chars()
    whole = text.cast(pl.Int64, strict=False)
    if whole.null_count() == 0:
        return whole
    numbers = text.cast(pl.Float64, strict=False)
    bad = (numbers.is_null() | ~numbers.is_finite()).fill_null(True).arg_true()
    if len(bad):
        raise UserError(
            f"{path}, line {bad[0] + 2}, column {name!r}: {text[bad[0]]!r} is not a finite number; "
            "correct it or remove the line"
        )
    return numbers


def _read_text(path: Path) -> bytes:
    """The content with plain line ends and without a byte-order mark or trailing blank."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; data.path must name a folder NAME with NAME.inter and "
            "NAME.item in it, or their common prefix"
        )
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    if not content.strip():
        raise UserError(f"{path}: the file is empty; give a header line and rows")
    zero = content.find(b"\0")
    if zero >= 0:
        raise UserError(
            f"{path}, line {_line_of(content, zero)}: a NUL byte; the file is damaged or not "
            "text, save it again as UTF-8"
        )
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {_line_of(content, error.start)}: byte 0x{content[error.start]:02x} is "
            "not valid UTF-8; convert the file, for example with iconv -t UTF-8"
        ) from error
    return content.rstrip(b"\n")


def _line_of(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def _parse_header(path: Path, header: str) -> list[str]:
    names = []
    for cell in header.split("\t"):
        name, colon, kind = cell.strip().rpartition(":")
        if not colon or not name or kind not in _TYPES:
            raise UserError(
                f"{path}, line 1, column {cell!r}: a header's field is NAME:TYPE with TYPE one "
                f"of {', '.join(_TYPES)}; write for example "
                f"'{name or cell.strip() or 'item_id'}:token'"
            )
        if name in names:
            raise UserError(f"{path}, line 1: column {name!r} occurs twice; rename or remove one")
        names.append(name)
    return names


def _check_field_counts(path: Path, body: bytes, expected: int) -> None:
    data = np.frombuffer(body, np.uint8)
    ends = np.append(np.flatnonzero(data == ord("\n")), len(data))
    tabs_before = np.searchsorted(np.flatnonzero(data == ord("\t")), ends)
    found = np.diff(tabs_before, prepend=0) + 1
    wrong = np.flatnonzero(found != expected)
    if len(wrong):
        raise UserError(
            f"{path}, line {wrong[0] + 2}: {found[wrong[0]]} tab-separated fields, the header has "
            f"{expected}; correct or remove the line (a tab inside a title must become a space)"
        )
