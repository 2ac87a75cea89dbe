"""Lists of recommendations that another system made, from a CSV or parquet file, checked against a corpus.

Columns: user_id, length (the list was made after the user's first `length` items), item_id, score; others are ignored. One row
per listed item, in any order. Ids are those of the corpus.
"""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float32, Int32, Int64

from delrec_jax.data.corpora.tables import positions_among
from delrec_jax.data.corpora.text_rows import TextFormat
from delrec_jax.data.corpora.text_table import TextTable, read_text_table, shown
from delrec_jax.data.interactions import Corpus
from delrec_jax.errors import UserError, one_line, without_panics

COLUMNS = ("user_id", "length", "item_id", "score")


@dataclasses.dataclass(frozen=True)
class RecommendationLists:
    """Lists for N histories, M listed items in all.

    Attributes:
      users: int32 [N], the user's number.
      lengths: int32 [N], number of the user's first items that the list was made after; rows ascend by (user, length).
      offsets: int64 [N+1]; list n owns items[offsets[n]:offsets[n + 1]].
      items: int32 [M], by score, the highest first; equal scores by item number.
      scores: float32 [M].
    """

    users: Int32[np.ndarray, "N"]
    lengths: Int32[np.ndarray, "N"]
    offsets: Int64[np.ndarray, "N+1"]
    items: Int32[np.ndarray, "M"]
    scores: Float32[np.ndarray, "M"]


def read_recommendation_lists(path: Path, corpus: Corpus) -> RecommendationLists:
    """Reads lists.

    Args:
      path: `FILE.csv` (commas, UTF-8, a header line) or `FILE.parquet`.
      corpus: The corpus whose users and items are listed.

    Returns:
      The lists. Items of the history itself may be listed: who ranks or distills leaves them out where they do not belong.

    Raises:
      UserError: the file cannot be read, or a row has an unknown user or item, a length that the user's sequence does not have,
        a score that is not a finite number, or an item that its list has already; the row is named.
    """
    table = _read(path)
    table.require(*COLUMNS)
    interactions, frame = corpus.interactions, table.frame
    user = _numbers(table, "user_id", interactions.user_ids, "user")
    item = _numbers(table, "item_id", corpus.catalogue.ids, "item")
    length = _lengths(table, interactions.lengths[user])
    wide = table.numbers("score").cast(pl.Float64).to_numpy()
    with np.errstate(over="ignore"):
        score = wide.astype(np.float32)
    if len(bad := np.flatnonzero(~np.isfinite(score))):
        row = int(bad[0])
        raise UserError(
            f"{table.place(row, 'score')}: {shown(frame['score'][row])} is too large for float32; scale the scores"
        )
    order = np.lexsort((item, -wide, length, user))  # the last key is the primary one
    _check_unique(table, user, length, item)
    user, length = user[order], length[order]
    first = np.flatnonzero(np.diff(user, prepend=-1) | np.diff(length, prepend=-1))
    return RecommendationLists(
        users=user[first],
        lengths=length[first],
        offsets=np.append(first, len(user)).astype(np.int64),
        items=item[order],
        scores=score[order],
    )


def _read(path: Path) -> TextTable:
    if path.suffix == ".csv":
        return read_text_table(path, form=TextFormat(separator=",", quoted=True))
    if path.suffix != ".parquet":
        raise UserError(f"{path}: lists are read from FILE.csv or FILE.parquet; convert it")
    try:
        with without_panics():
            schema = pl.read_parquet_schema(path)
            known = [name for name in COLUMNS if name in schema]
            frame = pl.read_parquet(path, columns=known, glob=False)
            frame = frame.cast(pl.String).fill_null("")
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"{path}: cannot be read as parquet with columns of numbers and text ({one_line(error, most=200)}); "
            "correct the path, or write the file again"
        ) from error
    if not len(frame):
        raise UserError(f"{path}: no rows; give a file with lists")
    rows = pl.Series(np.arange(1, len(frame) + 1))
    return TextTable(str(path), frame, rows, unfinished=False, counted="row")


def _numbers(
    table: TextTable, column: str, ids: tuple[str, ...], what: str
) -> Int32[np.ndarray, "M"]:
    """The number of each row's user or item in the corpus."""
    found = positions_among(table.frame[column], pl.Series(ids, dtype=pl.String))
    if len(unknown := np.flatnonzero(found < 0)):
        row = int(unknown[0])
        raise UserError(
            f"{table.place(row, column)}: {shown(table.frame[column][row])} is no {what} of the prepared corpus, "
            f"and {len(unknown) - 1} more rows have such {what}s: leave these rows out, and use the ids of the source files "
            "(`delrec histories` writes them)"
        )
    return found


def _lengths(table: TextTable, most: Int64[np.ndarray, "M"]) -> Int32[np.ndarray, "M"]:
    """The lengths of the histories, at most as many as the users have items [M]."""
    lengths = table.numbers("length").to_numpy()
    if len(bad := np.flatnonzero((lengths < 1) | (lengths > most) | (lengths % 1 != 0))):
        row = int(bad[0])
        raise UserError(
            f"{table.place(row, 'length')}: {shown(table.frame['length'][row])} is no length of a history of user_id "
            f"{shown(table.frame['user_id'][row])}, who has {most[row]} items in the prepared corpus: give a whole number from "
            f"1 to {most[row]}"
        )
    return lengths.astype(np.int32)


def _check_unique(table: TextTable, user: np.ndarray, length: np.ndarray, item: np.ndarray) -> None:
    order = np.lexsort((item, length, user))  # stable: the first of equal rows comes first
    same = np.ones(len(order) - 1, bool)
    for column in (user, length, item):
        same &= np.diff(column[order]) == 0
    if same.any():
        row = int(order[1:][same].min())
        raise UserError(
            f"{table.place(row, 'item_id')}: {shown(table.frame['item_id'][row])} is in the list of user_id "
            f"{shown(table.frame['user_id'][row])}, length {length[row]}, already; remove one of the rows"
        )
