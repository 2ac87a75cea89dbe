"""The recommended lists of a finished evaluation: each system's best unseen items per test user, beside the rank records.

top_lists.parquet    one row per system, teacher, seed and user
items.parquet        one row per item of the catalogue: its number of interactions in the training part

What is said of a system beyond its accuracy is computed from these two files and the records (`beyond_accuracy`). Systems that
rank stated candidates only have no lists, and workdirs of earlier versions have neither file.
"""

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from delrec_jax.evaluation.parquet_tables import (
    Schema,
    check_schema,
    ordered,
    read_parquet,
    refuse,
    write_parquet,
)
from delrec_jax.evaluation.systems import SYSTEMS, is_system
from delrec_jax.padding import PAD_ITEM

LENGTH = 10
"""Items per list."""

LISTS, ITEMS = "top_lists.parquet", "items.parquet"

LIST_SCHEMA: Schema = {
    "system": pl.String,
    "teacher": pl.String,
    "seed": pl.Int64,
    "user": pl.Int32,  # index, as in the rank records
    "items": pl.Array(pl.Int32, LENGTH),  # best first; -1 where there are no more
}
LIST_IDENTITY = ("system", "teacher", "seed", "user")

ITEM_SCHEMA: Schema = {"item": pl.Int32, "interactions": pl.Int64}


def lists_table(
    system: str,
    teacher: str,
    seed: int,
    *,
    users: Int[np.ndarray, "U"],
    items: Int[np.ndarray, "U 10"],
) -> pl.DataFrame:
    """The lists of one system as a table.

    Args:
      system: as in the rank records.
      teacher: as in the rank records.
      seed: as in the rank records.
      users: user indices.
      items: each user's best unseen items, best first; padded with -1 at the end.

    Raises:
      UserError: an unknown system, a user twice, an item twice in a list, or padding before an item.
    """
    shared = [pl.lit(system).alias("system"), pl.lit(teacher).alias("teacher")]
    stored = pl.Series("items", np.asarray(items, np.int32), dtype=pl.Array(pl.Int32, LENGTH))
    table = pl.DataFrame({"user": np.asarray(users, np.int32)}).with_columns(
        *shared, pl.lit(seed).alias("seed"), stored
    )
    return _checked(ordered(table, LIST_SCHEMA), where=f"lists of {system}")


def write_lists(folder: Path, lists: pl.DataFrame, *, interactions: Int[np.ndarray, "I"]) -> None:
    """Writes the lists of all systems and the items' interactions in the training part, each file completely or not at all."""
    write_parquet(folder / LISTS, _checked(lists, where=str(folder / LISTS)))
    items = pl.DataFrame({"item": np.arange(len(interactions)), "interactions": interactions})
    write_parquet(folder / ITEMS, ordered(items, ITEM_SCHEMA))


def read_lists(folder: Path) -> tuple[pl.DataFrame, Int[np.ndarray, "I"]] | None:
    """The lists of a folder of records, and the items' interactions [I]; None if that evaluation did not record them.

    Raises:
      UserError: a file is broken, or one of the two is missing.
    """
    if not (folder / LISTS).is_file():
        return None
    lists = _checked(read_parquet(folder / LISTS), where=str(folder / LISTS))
    items = check_schema(read_parquet(folder / ITEMS), ITEM_SCHEMA, where=str(folder / ITEMS))
    expected = f"the items 0 to {len(items) - 1} in this order"
    refuse(items, "item", pl.col("item") != pl.int_range(pl.len()), str(folder / ITEMS), expected)
    counts: np.ndarray = items["interactions"].to_numpy()
    outside = pl.col("items").arr.max() >= len(counts)
    refuse(lists, "items", outside, str(folder / LISTS), f"items below {len(counts)}")
    return lists, counts


def items_of(lists: pl.DataFrame) -> Int[np.ndarray, "U 10"]:
    """The items of a table of lists, in its order."""
    found: Int[np.ndarray, "U 10"] = lists["items"].to_numpy().reshape(len(lists), LENGTH)
    return found


def _checked(table: pl.DataFrame, *, where: str) -> pl.DataFrame:
    table = check_schema(table, LIST_SCHEMA, where=where)
    known = [name for name in table["system"].unique() if is_system(name)]
    expected = f"one of {list(SYSTEMS)}, or hybrid(A+B) of them"
    refuse(table, "system", ~pl.col("system").is_in(known), where, expected)
    twice = pl.struct(LIST_IDENTITY).is_duplicated()
    refuse(table, "user", twice, where, f"one row for each of {list(LIST_IDENTITY)}")
    wrong = pl.Series("wrong", _wrong_lists(items_of(table)))
    expected = "distinct items, padded with -1 at the end only"
    refuse(table.with_columns(wrong), "items", pl.col("wrong"), where, expected)
    return table


def _wrong_lists(items: Int[np.ndarray, "U 10"]) -> np.ndarray:
    """Which lists [U] have an item twice, a number below -1, or padding before an item."""
    filled = items > PAD_ITEM
    by_number = np.sort(items, axis=1)
    twice = (by_number[:, 1:] == by_number[:, :-1]) & (by_number[:, 1:] > PAD_ITEM)
    gaps = filled[:, 1:] & ~filled[:, :-1]
    wrong: np.ndarray = twice.any(axis=1) | gaps.any(axis=1) | (items < PAD_ITEM).any(axis=1)
    return wrong
