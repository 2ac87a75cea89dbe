"""Files with one record per line, read in bounded memory: large review dumps, plain or gzipped.

A dump of millions of crawled lines has a few broken ones. These are left out and counted by reason; a file with many such
lines is the wrong file or damaged, which is an error.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from delrec_jax.data.corpora.archives import lines_of, open_lines
from delrec_jax.errors import UserError

_CHUNK = 100_000
_FIRST_LINES = 10
_LARGEST_TIME = 253_402_300_799  # the last second of the year 9999


class BadLine(Exception):
    """A line that cannot be used; the message is the reason that it is counted under."""


def read_records(
    path: Path, parse: Callable[[bytes], tuple[Any, ...]], schema: Mapping[str, Any]
) -> tuple[pl.DataFrame, Counter[str]]:
    """Reads a file into a table, one row per line that is not blank.

    Args:
      path: A text file, or one packed with gzip.
      parse: Makes a row of a line; raises BadLine where it cannot.
      schema: Column names and types of the rows.

    Returns:
      The table in the file's order, and how many lines were left out for each reason.

    Raises:
      UserError: if the file cannot be read, has no lines, starts with ten unusable lines, or has more than ten unusable
        lines that are also more than one in a hundred.
    """
    chunks = [pl.DataFrame(schema=schema)]
    rows: list[tuple[Any, ...]] = []
    bad = _BadLines(path)
    with open_lines(path) as file:
        for number, line in enumerate(lines_of(path, file), start=1):
            if line.isspace():
                continue
            bad.lines += 1
            try:
                rows.append(parse(line))
            except BadLine as error:
                bad.add(number, line, str(error))
            if len(rows) == _CHUNK:
                chunks.append(_frame(rows, schema))
                rows = []
    bad.check_share()
    return pl.concat([*chunks, _frame(rows, schema)]), bad.reasons


def text_of(line: bytes) -> str:
    """A line as text, without surrounding white space.

    Raises:
      BadLine: if it is not UTF-8.
    """
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise BadLine("line that is not UTF-8") from error


def json_record(line: bytes) -> dict[str, Any]:
    """A line that is a JSON object.

    Raises:
      BadLine: if it is not.
    """
    try:
        record = json.loads(text_of(line))
    except (ValueError, RecursionError) as error:
        raise BadLine("line that is no JSON") from error
    if not isinstance(record, dict):
        raise BadLine("line that is no JSON object")
    return record


def python_record(read: Callable[[str], dict[str, Any]], line: bytes) -> dict[str, Any]:
    """Fields of a line that is a Python dict literal.

    Args:
      read: A reader made by `python_literals.field_reader`.
      line: The line.

    Raises:
      BadLine: if it is not a dict literal.
    """
    try:
        return read(text_of(line))
    except ValueError as error:
        raise BadLine("line that is no Python dict") from error


def plain_text(value: object) -> str:
    """A string field, stripped; "" for any other type.

    Half a surrogate pair, which escapes can spell but UTF-8 cannot, becomes U+FFFD.
    """
    if not isinstance(value, str):
        return ""
    if value.isascii():
        return value.strip()
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()


def required(record: Mapping[str, Any], name: str) -> str:
    """The text of an identifier; integers are written out.

    Raises:
      BadLine: if the field is missing or empty.
    """
    value = record.get(name)
    text = str(value) if type(value) is int else plain_text(value)
    if not text:
        raise BadLine(f"line without {name}")
    return text


def time_of(value: object, *, per_second: int = 1) -> int:
    """A Unix time.

    Args:
      value: An integer number of units.
      per_second: Units per second; 1000 for milliseconds.

    Raises:
      BadLine: if it is not an integer, or beyond the year 9999.
    """
    if type(value) is not int or abs(value) > _LARGEST_TIME * per_second:
        raise BadLine("line without a time")
    return value


def without_repeats(
    items: pl.DataFrame, dropped: Mapping[str, int]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Keeps the first row of each item.

    Args:
      items: A table with a column `item`.
      dropped: The rows left out so far, by reason.

    Returns:
      The table, and `dropped` with the rows that were left out here.
    """
    unique = items.unique("item", keep="first", maintain_order=True)
    return unique, {**dropped, "items: repeated id": len(items) - len(unique)}


class _BadLines:
    """Counts unusable lines, and decides when there are too many."""

    def __init__(self, path: Path):
        self.path = path
        self.lines = 0
        self.reasons: Counter[str] = Counter()
        self.first = ""

    def add(self, number: int, line: bytes, reason: str) -> None:
        """Counts a line; a file that begins with nothing but such lines is the wrong file."""
        self.reasons[reason] += 1
        if not self.first:
            shown = line[:60].decode(errors="replace").strip()
            self.first = f"{self.path}, line {number}: {reason}: {shown!r}"
        if self.lines == self.reasons.total() == _FIRST_LINES:
            raise UserError(
                f"{self.first}, and the {_FIRST_LINES - 1} lines after it are no better; this is "
                "not a file of the edition asked for: give the right one, or fetch it again"
            )

    def check_share(self) -> None:
        """Refuses a file in which more than a few stray lines cannot be used."""
        if not self.lines:
            raise UserError(f"{self.path}: no lines in it; fetch the file again")
        bad = self.reasons.total()
        if bad == self.lines or (bad > _FIRST_LINES and bad * 100 > self.lines):
            raise UserError(
                f"{self.first}; {bad} of {self.lines} lines cannot be used either; fetch the "
                "file again, or check that it is of the edition asked for"
            )


def _frame(rows: list[tuple[Any, ...]], schema: Mapping[str, Any]) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    series = [
        pl.Series(name, column, dtype=kind)
        for (name, kind), column in zip(schema.items(), columns, strict=True)
    ]
    return pl.DataFrame(series)
