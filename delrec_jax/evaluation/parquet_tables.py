"""Parquet files with a fixed schema, written whole and checked when they are read: rank records and what lies beside them."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from delrec_jax.errors import UserError, one_line, without_panics
from delrec_jax.files import whole

Schema = Mapping[str, pl.DataType | type[pl.DataType]]


def ordered(table: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """The schema's columns, in its order and types."""
    return table.select(pl.col(name).cast(kind) for name, kind in schema.items())


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Writes a table, completely or not at all."""
    with whole(path) as partial:
        table.write_parquet(partial)


def read_parquet(path: Path) -> pl.DataFrame:
    """Reads a table that `delrec evaluate` wrote.

    Raises:
      UserError: the file is missing or broken.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such records file; run `delrec evaluate` on this workdir first"
        )
    try:
        with without_panics():
            return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable parquet file ({one_line(error, most=200)}); delete it and "
            "run `delrec evaluate` again"
        ) from error


def check_schema(table: pl.DataFrame, schema: Schema, *, where: str) -> pl.DataFrame:
    """The schema's columns of `table`.

    Raises:
      UserError: a column is missing, has another type or contains nulls.
    """
    remedy = "write it with this version's `delrec evaluate`"
    for name, kind in schema.items():
        if name not in table.columns:
            raise UserError(
                f"{where}: column '{name}' is missing (found: {', '.join(table.columns)}); {remedy}"
            )
        if table.schema[name] != kind:
            raise UserError(
                f"{where}: column '{name}' is {table.schema[name]}, expected {kind}; {remedy}"
            )
        if table[name].null_count():
            raise UserError(f"{where}: column '{name}' has empty values; {remedy}")
    return table.select(list(schema))


def refuse(table: pl.DataFrame, column: str, bad: pl.Expr, where: str, expected: str) -> None:
    """Raises a `UserError` for the first row where `bad` holds; it says what was `expected`."""
    wrong = table.with_row_index("row").filter(bad)
    if len(wrong):
        (found,) = wrong[column].head(1).to_list()
        raise UserError(
            f"{where}: column '{column}', row {wrong['row'][0]}: found {found!r}, "
            f"expected {expected}; evaluate again into an empty records folder"
        )
