"""From a source's raw tables to a corpus: which rows are kept, and how items are called.

Rows are left out only for a stated reason, and every reason is counted in the corpus' `dropped`. Ids become integers at
once, and every rule is a few passes over integer arrays: the time depends on the number of rows, not on the length of ids.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Int32, Int64

from delrec_jax import prng
from delrec_jax.data.corpora.data_config import REPEATS, TIME_TIES
from delrec_jax.data.corpora.raw import ITEM_COLUMNS, YEAR, RawTables
from delrec_jax.data.corpora.times import times_are_positions
from delrec_jax.data.corpora.titles import (
    clean_title,
    cut_long_titles,
    distinct_titles,
    fill_empty_titles,
)
from delrec_jax.data.interactions import Catalogue, Corpus, Interactions
from delrec_jax.errors import UserError

LOW_RATING = "interactions: rating below data.min_rating"
NO_TITLE_ROW = "interactions: item without title row"
REPEATED = "interactions: repeated user and item"
SHORT_USER = "interactions: user shorter than data.min_length"
OUTSIDE_CORE = "interactions: outside the data.k_core"
BEYOND_MAX_USERS = "interactions: user beyond data.max_users"
UNUSED_ITEM = "items: without interactions"
EMPTY_TITLE = "titles: empty, made from the id"
LONG_TITLE = "titles: too long, cut"
REPEATED_TITLE = "titles: repeated, made distinct"


@dataclasses.dataclass(frozen=True)
class RulesConfig:
    """What is kept of a source.

    Attributes:
      min_rating: Rows with a lower rating are left out; 0 keeps all and needs no ratings.
      k_core: Users and items with fewer interactions are left out, repeatedly, until none has fewer; 0 is off.
      min_length: Users with fewer interactions are left out.
      max_users: The size of a random sample of users; 0 takes all.
      repeats: Which of a user's rows with the same item is kept: the "first" or "last" in time, or all ("keep").
      time_ties: The order of a user's rows in the same second: that of the file, or of parts of a second, where the source
        has them ("file"), or of the item ids as text ("item"), which does not depend on how the source was written.
      seed: The seed of the sample of users.

    Raises:
      UserError: for a setting outside its range.
    """

    min_rating: float = 0.0
    k_core: int = 0
    min_length: int = 3
    max_users: int = 0
    repeats: Literal["first", "last", "keep"] = "first"
    time_ties: Literal["file", "item"] = "file"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("min_rating", "k_core", "min_length", "max_users"):
            if getattr(self, name) < 0:
                raise UserError(f"data.{name} = {getattr(self, name)}: must be at least 0")
        for name, choices in (("repeats", REPEATS), ("time_ties", TIME_TIES)):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"data.{name} = {getattr(self, name)!r}: is none of {', '.join(choices)}"
                )


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Interactions as integers; `item` is -1 where the item has no title row."""

    user: Int32[np.ndarray, "N"]
    item: Int32[np.ndarray, "N"]
    time: Int64[np.ndarray, "N"]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: Bool[np.ndarray, "N"] | Int64[np.ndarray, "M"]) -> "_Rows":
        return _Rows(self.user[which], self.item[which], self.time[which])


def make_corpus(raw: RawTables, rules: RulesConfig) -> Corpus:
    """Applies the rules to a source.

    Args:
      raw: The tables as the source has them.
      rules: What is kept.

    Returns:
      The corpus: users in the order in which the source first names them, items in the order of the source's items, without
      items that no one interacted with; a user's interactions by time, and at equal times as `time_ties` says.

    Raises:
      UserError: if the rules leave nothing, or need ratings that the source lacks.
    """
    user, user_ids = _user_numbers(raw.interactions["user"])
    item = positions_among(raw.interactions["item"], raw.items["item"])
    rows = _Rows(user, item, raw.interactions["time"].to_numpy())
    ordered_only = times_are_positions(rows.user, rows.time)
    rows, dropped = _apply(rules, rows, raw)
    dropped = {**raw.dropped, **dropped}
    if not len(rows):
        raise UserError(
            f"corpus {raw.name}: no interaction is left of {raw.interactions.height} ({_nonzero(dropped)}); relax "
            "data.min_rating, data.k_core or data.min_length, or check that both files use the same item ids"
        )
    used = np.flatnonzero(np.bincount(rows.item, minlength=raw.items.height))
    catalogue, changed_titles = _catalogue(raw.items[used])
    return Corpus(
        name=raw.name,
        catalogue=catalogue,
        interactions=_interactions(rows, user_ids, used),
        dropped={**dropped, UNUSED_ITEM: raw.items.height - len(used), **changed_titles},
        ordered_only=ordered_only,
        parts=_parts(raw, user, rows.user),
    )


def _parts(
    raw: RawTables, user: Int32[np.ndarray, "N"], kept: Int32[np.ndarray, "M"]
) -> tuple[str, ...] | None:
    """The part of each user of whom a row is kept, in the order of their numbers."""
    if "part" not in raw.interactions.columns:
        return None
    _, first = np.unique(user, return_index=True)
    return tuple(raw.interactions["part"].gather(first[np.unique(kept)]).to_list())


def _user_numbers(users: pl.Series) -> tuple[Int32[np.ndarray, "N"], pl.Series]:
    """Each row's user, numbered in order of first appearance, and the users' ids."""
    ids = users.unique(maintain_order=True)
    return positions_among(users, ids), ids


def positions_among(values: pl.Series, ids: pl.Series) -> Int32[np.ndarray, "N"]:
    """The position of each value among unique ids, -1 where it is not among them."""
    known = pl.DataFrame({"id": ids, "number": np.arange(len(ids), dtype=np.int32)})
    found = values.to_frame("id").join(known, on="id", how="left", maintain_order="left")
    return found["number"].fill_null(-1).to_numpy()


def _apply(rules: RulesConfig, rows: _Rows, raw: RawTables) -> tuple[_Rows, dict[str, int]]:
    """Applies the rules in turn and counts the rows that each leaves out."""
    dropped = {}

    def keep(reason: str, kept: _Rows) -> _Rows:
        """Counts what `rows` loses and returns what is kept."""
        dropped[reason] = len(rows) - len(kept)
        return kept

    if rules.min_rating:
        rows = keep(LOW_RATING, rows.take(_rated(raw, rules.min_rating)))
    rows = keep(NO_TITLE_ROW, rows.take(rows.item >= 0))
    rows = _in_time_order(rows, raw.items["item"] if rules.time_ties == "item" else None)
    rows = keep(REPEATED, _without_repeats(rows, rules.repeats))
    rows = keep(SHORT_USER, _at_least(rows, "user", rules.min_length))
    rows = keep(OUTSIDE_CORE, _core(rows, rules.k_core, rules.min_length))
    rows = keep(BEYOND_MAX_USERS, _sample_users(rows, rules.max_users, rules.seed))
    return rows, dropped


def _rated(raw: RawTables, least: float) -> Bool[np.ndarray, "N"]:
    if "rating" not in raw.interactions.columns:
        raise UserError(
            f"data.min_rating = {least:g}: corpus {raw.name} has no ratings; set it to 0, or give a source with a column "
            "'rating'"
        )
    return (raw.interactions["rating"] >= least).fill_null(False).to_numpy()


def _in_time_order(rows: _Rows, item_ids: pl.Series | None) -> _Rows:
    """Rows by user and time; at equal times by item id if ids are given, else in their present order."""
    keys = [rows.time, rows.user]
    if item_ids is not None:
        rank = np.empty(len(item_ids), np.int32)
        rank[item_ids.arg_sort().to_numpy()] = np.arange(len(item_ids), dtype=np.int32)
        keys = [rank[rows.item], *keys]
    return rows.take(np.lexsort(keys))  # stable; the last key is the primary one


def _without_repeats(rows: _Rows, repeats: str) -> _Rows:
    if repeats == "keep" or not len(rows):
        return rows
    pairs = pl.Series(rows.user.astype(np.int64) * (int(rows.item.max()) + 1) + rows.item)
    kept = pairs.is_first_distinct() if repeats == "first" else pairs.is_last_distinct()
    return rows.take(kept.to_numpy())


def _core(rows: _Rows, k_core: int, min_length: int) -> _Rows:
    """Leaves out rare items and users with few interactions until there are none."""
    before = -1
    while k_core and len(rows) != before:
        before = len(rows)
        rows = _at_least(rows, "item", k_core)
        rows = _at_least(rows, "user", max(k_core, min_length))
    return rows


def _at_least(rows: _Rows, column: Literal["user", "item"], count: int) -> _Rows:
    numbers = getattr(rows, column)
    return rows.take((np.bincount(numbers) >= count)[numbers]) if len(rows) else rows


def _sample_users(rows: _Rows, count: int, seed: int) -> _Rows:
    users = np.flatnonzero(np.bincount(rows.user)) if len(rows) else rows.user
    if not 0 < count < len(users):
        return rows
    order = prng.generator(seed, "max_users").permutation(len(users))
    chosen = np.zeros(int(users[-1]) + 1, bool)
    chosen[users[order[:count]]] = True
    return rows.take(chosen[rows.user])


def _interactions(rows: _Rows, user_ids: pl.Series, used: Int64[np.ndarray, "I"]) -> Interactions:
    """Compresses rows sorted by user; `used` lists the items that are kept."""
    lengths = np.bincount(rows.user, minlength=len(user_ids))
    users = np.flatnonzero(lengths)
    number = np.full(int(used[-1]) + 1, -1, np.int32)
    number[used] = np.arange(len(used), dtype=np.int32)
    return Interactions(
        user_ids=tuple(user_ids[users].to_list()),
        offsets=np.concatenate([[0], np.cumsum(lengths[users])]).astype(np.int64),
        items=number[rows.item],
        times=rows.time,
    )


def _catalogue(items: pl.DataFrame) -> tuple[Catalogue, dict[str, int]]:
    """The catalogue, with cleaned titles and all other columns as attributes, and how many titles were changed."""
    texts = items.drop(ITEM_COLUMNS).select(pl.all().fill_null("").str.strip_chars())
    attributes = {column.name: tuple(column.to_list()) for column in texts}
    ids = items["item"].to_list()
    titles, long = cut_long_titles([clean_title(raw) for raw in items["title"].fill_null("")])
    titles, empty = fill_empty_titles(titles, ids)
    titles, changed = distinct_titles(titles, ids, attributes.get(YEAR, ("",) * len(ids)))
    counts = {EMPTY_TITLE: empty, LONG_TITLE: long, REPEATED_TITLE: changed}
    return Catalogue(tuple(ids), tuple(titles), attributes), counts


def _nonzero(dropped: Mapping[str, int]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in dropped.items() if count)
