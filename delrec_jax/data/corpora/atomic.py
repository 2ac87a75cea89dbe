"""Corpora from RecBole atomic files: NAME.inter (interactions) and NAME.item (titles)."""

import dataclasses
from pathlib import Path

import polars as pl

from delrec_jax.data.corpora.atomic_files import read_atomic_table
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder
from delrec_jax.data.corpora.clicks import refuse_unclicked
from delrec_jax.data.corpora.raw import YEAR, RawTables
from delrec_jax.data.corpora.tables import RulesConfig, make_corpus
from delrec_jax.data.corpora.text_table import TextTable
from delrec_jax.data.corpora.times import whole_seconds
from delrec_jax.data.interactions import Corpus
from delrec_jax.errors import UserError
from delrec_jax.files import expanded

_TITLE_COLUMNS = ("title", "movie_title", "name", "app_name", "book_title")
# RecBole's converted files name items by what they are; which column holds them is a setting there.
_ITEM_COLUMNS = ("item_id", "product_id", "artist_id", "business_id", "book_id")
_RELEASE_YEAR = "release_year"

UNFINISHED_INTER = "interactions: the last line has no line end, taken as it is"
UNFINISHED_ITEM = "items: the last line has no line end, taken as it is"


@dataclasses.dataclass(frozen=True)
class AtomicSettings:
    """Where the files are and what is kept of them.

    Attributes:
      path: A folder NAME with NAME.inter and NAME.item, or their common prefix.
      rules: What is kept.
    """

    path: str
    rules: RulesConfig = dataclasses.field(default_factory=RulesConfig)


class AtomicCorpus(SequenceCorpusBuilder[AtomicSettings]):
    """TFDS builder of a corpus in atomic files."""

    def parse(self) -> Corpus:
        """Reads the files and applies the rules."""
        return read_atomic(self.settings)


def atomic_paths(path: str) -> tuple[Path, Path]:
    """The `.inter` and the `.item` file that `path` means; they may not exist.

    Raises:
      UserError: if no path is given.
    """
    if not path:
        raise UserError(
            "data.path: empty; corpus 'atomic' needs a folder NAME with NAME.inter and NAME.item "
            "in it, or their common prefix"
        )
    prefix = expanded(path)
    if prefix.is_dir():
        prefix = prefix / prefix.resolve().name
    return prefix.with_name(prefix.name + ".inter"), prefix.with_name(prefix.name + ".item")


def read_atomic(settings: AtomicSettings) -> Corpus:
    """Reads a corpus from its two files.

    Raises:
      UserError: for anything wrong in the files, or if the rules leave nothing.
    """
    return make_corpus(read_atomic_tables(settings.path), settings.rules)


def read_atomic_tables(path: str) -> RawTables:
    """Reads the two files as they are.

    Args:
      path: A folder NAME with NAME.inter and NAME.item, or their common prefix.

    Raises:
      UserError: for anything wrong in the files, with file, line, column and remedy.
    """
    inter_path, item_path = atomic_paths(path)
    items, item_file = _read_items(item_path)
    interactions, inter_file = _read_interactions(inter_path)
    unfinished = {UNFINISHED_INTER: inter_file.unfinished, UNFINISHED_ITEM: item_file.unfinished}
    return RawTables(
        name=inter_path.stem,
        interactions=interactions,
        items=items,
        dropped={reason: int(found) for reason, found in unfinished.items()},
    )


def _read_interactions(path: Path) -> tuple[pl.DataFrame, TextTable]:
    table = read_atomic_table(path)
    item = _first_of(table, _ITEM_COLUMNS)
    table.require_ids("user_id", item)
    table.require("timestamp")
    refuse_unclicked(table)
    columns = {
        "user": table.frame["user_id"],
        "item": table.frame[item],
        "time": table.times("timestamp"),
    }
    if "rating" in table.frame.columns:
        columns["rating"] = table.ratings("rating")
    return whole_seconds(pl.DataFrame(columns)), table


def _read_items(path: Path) -> tuple[pl.DataFrame, TextTable]:
    """The items with title, year if there is one, and all other columns."""
    table = read_atomic_table(path)
    item = _first_of(table, (*_ITEM_COLUMNS, "id"))
    table.require_ids(item)
    columns = table.frame.columns
    title = next((name for name in _TITLE_COLUMNS if name in columns), None)
    if title is None:
        raise UserError(
            f"{path}, line 1: no title among the columns {columns}; name one of them "
            f"{' or '.join(_TITLE_COLUMNS)} (type token_seq)"
        )
    table.require_unique(item)
    names = {item: "item", title: "title"}
    if _RELEASE_YEAR in columns and YEAR not in columns:
        names[_RELEASE_YEAR] = YEAR
    others = [name for name in columns if name not in (item, title)]
    for taken in {"item", "title"} & {*others}:
        raise UserError(
            f"{path}, line 1: column {taken!r} beside {item!r} and {title!r}; rename or remove {taken!r}"
        )
    return table.frame.select(item, title, *others).rename(names), table


def _first_of(table: TextTable, names: tuple[str, ...]) -> str:
    """The first of these columns that the file has; the first of all if it has none, which is then told to be missing."""
    return next((name for name in names if name in table.frame.columns), names[0])
