"""Times as people write them in CSV files: ISO 8601 dates, or numbers since 1970 in any unit.

What could be read in two ways is refused: a wrong guess would silently put events into the wrong order or century.
"""

import polars as pl

from delrec_jax.data.corpora.text_table import TextTable, shown
from delrec_jax.errors import UserError

_LAST_SECOND = 4_102_444_800  # the year 2100
_FIRST_SECOND = 100_000_000  # March 1973; finer units before it could be coarser ones after it
_MICROS = 10**6
_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": _MICROS, "nanoseconds": 10**9}
_DAY = "%Y-%m-%d"
_FORMS = (_DAY, f"{_DAY} %H:%M", f"{_DAY} %H:%M:%S%.f")
_COMPACT = {"%Y%m%d": 8, "%d%m%Y": 8, "%m%d%Y": 8, "%Y%m%d%H%M": 12}  # and their digits
_ZONE = r"(Z|[+-][0-9]{2}:?[0-9]{2})$"


def read_times(table: TextTable, column: str, *, is_date: bool) -> tuple[pl.Series, int]:
    """Reads a column of times that are all written in the same form.

    Numbers are seconds since 1970 or positions (0, 1, 2, ...), or milli-, micro- or nanoseconds between 1973 and 2100.
    Dates are YYYY-MM-DD, optionally with a time of day after "T" or a space, and a zone ("Z", "+02:00") in all rows or in
    none; without a zone they are taken as UTC.

    Args:
      table: The table.
      column: Its column of times, without blank cells.
      is_date: Whether the column's name says that it holds dates, so that a small number is not a position.

    Returns:
      The times, Int64 or (numbers with fractions) Float64, and the number of their units per second.

    Raises:
      UserError: naming the first cell that is not a time, has another form than the first cell, or is ambiguous.
    """
    text = table.frame[column].str.strip_chars()
    if text[0][4:5] == "-":
        return _iso_times(table, column, text), _MICROS
    no_number = text.cast(pl.Float64, strict=False).is_null().arg_true()
    if len(no_number):
        raise _ambiguous(table, column, no_number[0], "not a time that can be read")
    padded = text.str.contains("^0[0-9]{5,7}$").arg_true()
    if len(padded):
        raise _ambiguous(table, column, padded[0], "a date without separators, or a number")
    numbers = table.numbers(column)
    return numbers, _unit(table, column, numbers, is_date=is_date)


def _unit(table: TextTable, column: str, numbers: pl.Series, *, is_date: bool) -> int:
    """Units per second, inferred from the size of the first number and checked against all others."""
    name = next((u for u in _UNITS if numbers[0] < _LAST_SECOND * _UNITS[u]), "nanoseconds")
    unit = _UNITS[name]
    year, lowest = (1973, _FIRST_SECOND * unit) if is_date or unit > 1 else (1970, 0)
    bad = ((numbers < lowest) | (numbers >= _LAST_SECOND * unit)).arg_true()
    if len(bad):
        raise _ambiguous(table, column, bad[0], f"not a time from {year} to 2099 in {name}")
    if unit <= _UNITS["milliseconds"] and _all_compact(numbers):
        raise _ambiguous(table, column, 0, f"a date without separators, or {name} in the 1970s")
    return unit


def _ambiguous(table: TextTable, column: str, row: int, why: str) -> UserError:
    return UserError(
        f"{table.place(row, column)}: {shown(table.frame[column][row])} is {why}; write all rows as dates "
        "such as 2020-01-31T18:30:00, or all in one unit since 1970"
    )


def _all_compact(numbers: pl.Series) -> bool:
    """Whether all numbers are dates, months or years of 1900 to 2099 in one of the forms that have no separators."""
    if numbers.dtype.is_float():
        return False
    months = numbers.is_between(190_001, 209_912) & (numbers % 100).is_between(1, 12)
    return bool(numbers.is_between(1900, 2099).all() or months.all()) or any(
        _are_dates(numbers.cast(pl.String).str.zfill(digits), form)
        for form, digits in _COMPACT.items()
    )


def _are_dates(text: pl.Series, form: str) -> bool:
    dates = text.str.to_datetime(form, strict=False, time_unit="us")
    return dates.null_count() == 0 and bool(dates.dt.year().is_between(1900, 2099).all())


def _iso_times(table: TextTable, column: str, text: pl.Series) -> pl.Series:
    """Microseconds since 1970."""
    zoned = text.str.slice(10).str.contains(_ZONE)
    mixed = (zoned != zoned[0]).arg_true()
    if len(mixed):
        raise UserError(
            f"{table.place(mixed[0], column)}: {shown(text[mixed[0]])}: some rows name a time zone and some do not; "
            "give one in all of them or in none"
        )
    plain = text.str.replace("T", " ").str.replace("Z$", "+0000")
    parsed = [_parsed(plain, form, zoned=zoned[0]) for form in _FORMS]
    times = pl.select(pl.coalesce(parsed)).to_series()
    bad = times.is_null().arg_true()
    if len(bad):
        raise UserError(
            f"{table.place(bad[0], column)}: {shown(text[bad[0]])} is not a date; write it as 2020-01-31, "
            "2020-01-31T18:30:00 or 2020-01-31T18:30:00+02:00"
        )
    odd = (~times.dt.year().is_between(1900, 2099)).arg_true()
    if len(odd):
        raise UserError(
            f"{table.place(odd[0], column)}: {shown(text[odd[0]])} is not a time from 1900 to 2099; correct it, or "
            "leave the row out if its time is not known"
        )
    return times.dt.epoch("us")


def _parsed(text: pl.Series, form: str, *, zoned: bool) -> pl.Series:
    """Times in UTC, null where they are not written in this form."""
    zone = "%z" if zoned else ""
    times = text.str.to_datetime(form + zone, time_unit="us", time_zone="UTC", strict=False)
    return times.dt.replace_time_zone(None)
