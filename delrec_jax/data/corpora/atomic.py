"""Corpora from RecBole atomic files: NAME.inter (who took what, when) and NAME.item (titles).

Rows are left out for a stated reason only, and every reason is counted in the corpus'
`dropped`. Within a user the order is by time, and by the file's order at equal times.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64

from delrec_jax import prng
from delrec_jax.data.corpora.atomic_files import parse_numbers, read_table, require_columns
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder
from delrec_jax.data.corpora.titles import clean_title, distinct_titles, fill_empty_titles
from delrec_jax.data.interactions import Catalogue, Corpus, Interactions
from delrec_jax.errors import UserError

_TITLE_COLUMNS = ("title", "movie_title", "name")
_YEAR_COLUMNS = ("release_year", "year")

LOW_RATING = "interactions: rating below data.min_rating"
NO_TITLE_ROW = "interactions: item without title row"
REPEATED = "interactions: repeated user and item"
SHORT_USER = "interactions: user shorter than data.min_length"
OUTSIDE_CORE = "interactions: outside the data.k_core"
BEYOND_MAX_USERS = "interactions: user beyond data.max_users"
UNUSED_ITEM = "items: without interactions"
EMPTY_TITLE = "titles: empty, made from the id"
REPEATED_TITLE = "titles: repeated, made distinct"


@dataclasses.dataclass(frozen=True)
class AtomicConfig:
    """Where the files are and what is kept of them.

    Attributes:
      path: A folder NAME with NAME.inter and NAME.item, or their common prefix.
      min_rating: Rows rated lower are left out; 0 keeps all and needs no ratings.
      k_core: Users and items with fewer interactions are left out, again and again until
        none is; 0 is off.
      min_length: Users with fewer interactions are left out.
      max_users: A random sample of so many users; 0 takes all.
      seed: Of that sample.
    """

    path: str
    min_rating: float = 0.0
    k_core: int = 0
    min_length: int = 3
    max_users: int = 0
    seed: int = 0


class AtomicCorpus(SequenceCorpusBuilder[AtomicConfig]):
    """TFDS builder of a corpus in atomic files; its settings are an `AtomicConfig`."""

    def parse(self) -> Corpus:
        """Reads and filters the files."""
        return read_atomic(self.settings)


def atomic_paths(path: str) -> tuple[Path, Path]:
    """The `.inter` and the `.item` file that `path` stands for; they may not exist.

    Raises:
      UserError: if no path is given.
    """
    if not path:
        raise UserError(
            "data.path: empty; corpus 'atomic' needs a folder NAME with NAME.inter and NAME.item "
            "in it, or their common prefix"
        )
    prefix = Path(path)
    if prefix.is_dir():
        prefix = prefix / prefix.resolve().name
    return prefix.with_name(prefix.name + ".inter"), prefix.with_name(prefix.name + ".item")


def read_atomic(config: AtomicConfig) -> Corpus:
    """Reads a corpus from its two files.

    Args:
      config: Files and filters.

    Returns:
      The corpus: users in the order in which the `.inter` file first names them among the
      rows kept, items in the order of the `.item` file, without items that nobody took.

    Raises:
      UserError: for anything wrong in the files, or if the filters leave nothing.
    """
    inter_path, item_path = atomic_paths(config.path)
    items = _read_items(item_path)
    rows, dropped = _read_interactions(inter_path, items["item_id"], config)
    rows, dropped_by_filters = _filter(rows, config)
    dropped |= dropped_by_filters
    if rows.is_empty():
        raise UserError(
            f"{inter_path}: no interaction is left of {sum(dropped.values())} "
            f"({_nonzero(dropped)}); relax data.min_rating, data.k_core or data.min_length, or "
            f"check that {item_path.name} uses the same item ids"
        )
    used = np.unique(rows["item"].to_numpy())
    catalogue, changed_titles = _catalogue(items[used])
    return Corpus(
        name=inter_path.stem,
        catalogue=catalogue,
        interactions=_interactions(rows, used),
        dropped={**dropped, UNUSED_ITEM: len(items) - len(used), **changed_titles},
    )


def _read_items(path: Path) -> pl.DataFrame:
    """The `.item` table, checked: unique ids and a title column."""
    table = read_table(path)
    require_columns(path, table, ("item_id",))
    if _first_of(_TITLE_COLUMNS, table) is None:
        raise UserError(
            f"{path}, line 1: no title among the columns {table.columns}; name one of them "
            f"{' or '.join(_TITLE_COLUMNS)} (type token_seq)"
        )
    repeated = table["item_id"].is_first_distinct().not_().arg_true()
    if len(repeated):
        raise UserError(
            f"{path}, line {repeated[0] + 2}, column 'item_id': "
            f"{table['item_id'][repeated[0]]!r} has a row already; remove one of them"
        )
    return table


def _catalogue(table: pl.DataFrame) -> tuple[Catalogue, dict[str, int]]:
    """Titles fit to be read, all other columns as attributes, and what was changed."""
    title_column = _first_of(_TITLE_COLUMNS, table)
    assert title_column is not None  # `_read_items` has checked it
    year_column = _first_of(_YEAR_COLUMNS, table)
    ids = table["item_id"].to_list()
    texts = table.drop("item_id", title_column).select(pl.all().str.strip_chars())
    attributes = {column.name: tuple(column.to_list()) for column in texts}
    titles, empty = fill_empty_titles([clean_title(raw) for raw in table[title_column]], ids)
    years = attributes[year_column] if year_column else ("",) * len(ids)
    titles, changed = distinct_titles(titles, ids, years)
    counts = {EMPTY_TITLE: empty, REPEATED_TITLE: changed}
    return Catalogue(tuple(ids), tuple(titles), attributes), counts


def _read_interactions(
    path: Path, item_ids: pl.Series, config: AtomicConfig
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Rows (user, item, time) with known items, once a pair, by user and time.

    `user` is the raw id, in order of first appearance; `item` the row of `item_ids`.
    """
    table = read_table(path)
    required = ("user_id", "item_id", "timestamp")
    require_columns(path, table, (*required, "rating") if config.min_rating else required)
    columns = {
        "user": table["user_id"],
        "raw_item": table["item_id"],
        "time": parse_numbers(path, table, "timestamp"),
    }
    rows = pl.DataFrame(columns).with_row_index("first")
    rows = rows.with_columns(pl.col("first").min().over("user"))
    dropped = {LOW_RATING: 0}
    if "rating" in table.columns and config.min_rating:
        high = parse_numbers(path, table, "rating") >= config.min_rating
        dropped[LOW_RATING] = int((~high).sum())
        rows = rows.filter(high)
    known = pl.DataFrame({"raw_item": item_ids, "item": np.arange(len(item_ids), dtype=np.int32)})
    titled = rows.join(known, on="raw_item", how="inner", maintain_order="left")
    dropped[NO_TITLE_ROW] = len(rows) - len(titled)
    ordered = titled.sort("first", "time", maintain_order=True)
    unique = ordered.unique(["user", "item"], keep="first", maintain_order=True)
    dropped[REPEATED] = len(ordered) - len(unique)
    return unique.select("user", "item", "time"), dropped


def _filter(rows: pl.DataFrame, config: AtomicConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    """Applies min_length, the k-core and max_users, and counts what each leaves out."""
    long = _at_least(rows, "user", config.min_length)
    core, before = long, -1
    while config.k_core and len(core) != before:
        before = len(core)
        core = _at_least(core, "item", config.k_core)
        core = _at_least(core, "user", max(config.k_core, config.min_length))
    users = core["user"].unique(maintain_order=True)
    kept = core
    if 0 < config.max_users < len(users):
        order = prng.generator(config.seed, "max_users").permutation(len(users))
        chosen = users[np.sort(order[: config.max_users])]
        kept = core.filter(pl.col("user").is_in(chosen.implode()))
    return kept, {
        SHORT_USER: len(rows) - len(long),
        OUTSIDE_CORE: len(long) - len(core),
        BEYOND_MAX_USERS: len(core) - len(kept),
    }


def _at_least(rows: pl.DataFrame, column: str, count: int) -> pl.DataFrame:
    return rows.filter(pl.len().over(column) >= count)


def _interactions(rows: pl.DataFrame, used: Int64[np.ndarray, "I"]) -> Interactions:
    """Compresses rows that are sorted by user and time; `used` lists the items kept."""
    lengths = rows.group_by("user", maintain_order=True).len()
    return Interactions(
        user_ids=tuple(lengths["user"].to_list()),
        offsets=np.concatenate([[0], np.cumsum(lengths["len"].to_numpy())]).astype(np.int64),
        items=np.searchsorted(used, rows["item"].to_numpy()).astype(np.int32),
        times=np.floor(rows["time"].to_numpy()).astype(np.int64),
    )


def _first_of(names: tuple[str, ...], table: pl.DataFrame) -> str | None:
    return next((name for name in names if name in table.columns), None)


def _nonzero(dropped: Mapping[str, int]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in dropped.items() if count)
