"""Interactions and items in tables of polars or pandas, as a corpus that a run can read."""

from pathlib import Path
from typing import Any

import polars as pl

from delrec_jax.data.corpora.csv_pair import csv_paths
from delrec_jax.errors import UserError, one_line, without_panics
from delrec_jax.files import expanded, whole

Place = str | Path

_TIME = "%Y-%m-%dT%H:%M:%S%.6f"


def from_frame(interactions: Any, items: Any, folder: Place) -> dict[str, str]:
    """Writes two tables as the corpus `csv`, and returns the settings that read it.

    Args:
      interactions: a polars or pandas frame with the columns user, item, time and, where there are ratings, rating; the usual
        names for these are understood (`data.corpora.csv_pair`). Times are numbers, dates or texts of dates.
      items: the same with item and title, optionally year; all others become attributes.
      folder: where interactions.csv and items.csv are written.

    Returns:
      Overrides for `load_config`: `load_config("minilm/own", **from_frame(interactions, items, "shop"))`.

    Raises:
      UserError: one of them is not a frame or has a column of lists or objects, or the folder cannot be written.
    """
    place = given(folder, "folder", "the folder that the tables are written to")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder={place}: cannot be made ({error}); give another") from error
    for path, frame, name in zip(
        csv_paths(str(place)), (interactions, items), ("interactions", "items"), strict=True
    ):
        table = _in_utc(_table(frame, name))
        _refuse_nested(table, name)
        try:
            with without_panics(), whole(path) as partial:
                table.write_csv(partial, datetime_format=_TIME)
        except (pl.exceptions.PolarsError, ValueError) as error:
            raise UserError(
                f"{name}: cannot be written as CSV ({one_line(error)}); give times from 1900 to 2099, numbers and text"
            ) from error
    return {"data.corpus": "csv", "data.path": str(place)}


def given(place: Any, name: str, meant: str) -> Path:
    """Returns a path of the user's, `~` replaced; nothing and what is no path are refused, and not taken for this folder.

    Raises:
      UserError: it is none.
    """
    if not isinstance(place, str | Path) or not str(place).strip():
        raise UserError(f"{name} is {place!r}: give {meant}")
    return expanded(place)


def _table(frame: Any, name: str) -> pl.DataFrame:
    """Returns a polars frame of a polars, lazy or pandas frame; pandas is not imported for it."""
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        return _without_nan(frame)
    if not (hasattr(frame, "columns") and hasattr(frame, "to_numpy")):
        raise UserError(f"{name} is a {type(frame).__name__}: give a polars or pandas frame")
    if named := [
        str(one) for one in getattr(getattr(frame, "index", None), "names", ()) if one is not None
    ]:
        raise UserError(
            f"{name}: its index {named[0]!r} is not read: call reset_index(), or reset_index(drop=True) if it is not needed"
        )
    names = [str(column) for column in frame.columns]
    if repeated := [column for column in names if names.count(column) > 1]:
        raise UserError(
            f"{name}: there are several columns {repeated[0]!r}; rename or drop all but one"
        )
    found = {
        str(column): _column(frame[column], f"{name}: column {str(column)!r}")
        for column in frame.columns
    }
    return _without_nan(pl.DataFrame(found))


def _without_nan(table: pl.DataFrame) -> pl.DataFrame:
    """NaN becomes a missing value, and whole numbers integers: pandas makes floats of ids among which one is missing."""
    floats = [name for name, kind in table.schema.items() if kind.is_float()]
    table = table.with_columns(pl.col(floats).fill_nan(None)) if floats else table
    whole_numbers = [
        name
        for name in floats
        if bool(((table[name] % 1 == 0) & (table[name].abs() < 2**53)).all())
    ]
    return table.with_columns(pl.col(whole_numbers).cast(pl.Int64)) if whole_numbers else table


def _in_utc(table: pl.DataFrame) -> pl.DataFrame:
    """Times with a zone become UTC without one, which is how times without a zone are read."""
    zoned = [name for name, kind in table.schema.items() if getattr(kind, "time_zone", None)]
    moved = pl.col(zoned).dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return table.with_columns(moved) if zoned else table


def _column(column: Any, place: str) -> pl.Series:
    values = column.to_numpy()
    if values.dtype.kind == "M":  # dates, in any unit
        return pl.Series(values.astype("datetime64[us]"))
    if values.dtype.kind in "iufb":  # numbers, truth values
        return pl.Series(values)
    for value in values:
        if hasattr(value, "__len__") and not isinstance(value, str):
            raise UserError(
                f"{place} holds {type(value).__name__}: give numbers or text, or leave the column out"
            )
    return pl.Series([None if _missing(value) else str(value) for value in values], dtype=pl.String)


def _missing(value: Any) -> bool:
    """Whether it is None, NaN, or pandas' NA, which has no truth value."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _refuse_nested(table: pl.DataFrame, name: str) -> None:
    """Refuses what no cell of a CSV file can hold."""
    others = (pl.Object, pl.Binary, pl.Duration)
    nested = [key for key, kind in table.schema.items() if kind.is_nested() or kind in others]
    if nested:
        raise UserError(
            f"{name}: column {nested[0]!r} holds {table.schema[nested[0]]}: give numbers or text, or leave the column out"
        )
