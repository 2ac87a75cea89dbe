"""A pair of CSV files with a user's own data: interactions.csv and items.csv.

Commas, UTF-8, double quotes as in RFC 4180, a header line. Columns are found by name, and all usual names are understood:
`userId`, `user_id` and `User` are the same.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from delrec_jax.data.corpora.atomic import UNFINISHED_INTER, UNFINISHED_ITEM
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder
from delrec_jax.data.corpora.clicks import refuse_unclicked
from delrec_jax.data.corpora.csv_times import read_times
from delrec_jax.data.corpora.raw import YEAR, RawTables
from delrec_jax.data.corpora.tables import RulesConfig, make_corpus
from delrec_jax.data.corpora.text_rows import TextFormat
from delrec_jax.data.corpora.text_table import TextTable, folded, read_text_table, shown
from delrec_jax.data.corpora.times import whole_seconds
from delrec_jax.data.interactions import Corpus
from delrec_jax.errors import UserError
from delrec_jax.files import expanded

_INTERACTIONS, _ITEMS = "interactions.csv", "items.csv"
_DATES = ("date", "datetime")
# Names without underscores, hyphens, spaces and capitals.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "userid", "uid", "customer", "customerid", "reviewerid"),
    "item": ("item", "itemid", "iid", "movieid", "product", "productid", "asin", "parentasin"),
    "time": ("time", "timestamp", "ts", "unixtime", "epoch", *_DATES),
    "rating": ("rating", "ratings", "stars", "score"),
    "title": ("title", "name", "itemtitle", "itemname", "movietitle", "productname"),
    YEAR: ("year", "releaseyear"),
}
# Names that count where none of those above is there: another column of such a name may be an attribute.
_FURTHER: Mapping[str, tuple[str, ...]] = {
    "user": ("reviewer", "visitorid", "accountid"),
    "item": (
        *("businessid", "bookid", "artistid", "trackid", "songid", "newsid", "articleid"),
        *("gameid", "appid", "sku"),
    ),
    "time": ("unixreviewtime", "reviewtime", "eventtime", "createdat"),
    "rating": ("overall",),
    "title": ("booktitle", "appname", "artistname", "trackname", "headline"),
    YEAR: (),
}


@dataclasses.dataclass(frozen=True)
class CsvSettings:
    """Where the two files are and what is kept of them.

    Attributes:
      path: The folder with interactions.csv and items.csv.
      rules: The rules of every corpus.
    """

    path: str
    rules: RulesConfig


class CsvCorpus(SequenceCorpusBuilder[CsvSettings]):
    """TFDS builder of a pair of CSV files, with `CsvSettings`."""

    def parse(self) -> Corpus:
        """Reads the files and applies the rules."""
        return make_corpus(read_csv_pair(*csv_paths(self.settings.path)), self.settings.rules)


def csv_paths(path: str) -> tuple[Path, Path]:
    """The two files in the folder `path`; they may not exist.

    Raises:
      UserError: if `path` is not a folder.
    """
    folder = expanded(path)
    if not path or not folder.is_dir():
        raise UserError(
            f"data.path: {path!r} is not a folder; corpus 'csv' needs one with {_INTERACTIONS} and "
            f"{_ITEMS} in it"
        )
    return folder / _INTERACTIONS, folder / _ITEMS


def read_csv_pair(interactions: Path, items: Path) -> RawTables:
    """Reads a pair of files.

    Args:
      interactions: Columns user, item, time and, where there are ratings, rating; other columns are ignored. Times are
        read by `csv_times.read_times`.
      items: Columns item and title, optionally year; all others become attributes.

    Returns:
      The tables, named after the folder.

    Raises:
      UserError: for anything wrong in the files.
    """
    events = _read(interactions)
    user, item, time = (_column(events, role) for role in ("user", "item", "time"))
    events.require_ids(user, item)
    events.require(time)
    times, unit = read_times(events, time, is_date=folded(time) in _DATES)
    columns = {"user": events.frame[user], "item": events.frame[item], "time": times}
    refuse_unclicked(events)
    if rating := _column(events, "rating", optional=True):
        columns["rating"] = events.ratings(rating)
    catalogue, item_file = _items(items)
    unfinished = {UNFINISHED_INTER: events.unfinished, UNFINISHED_ITEM: item_file.unfinished}
    return RawTables(
        name=interactions.resolve().parent.name,
        interactions=whole_seconds(pl.DataFrame(columns), per_second=unit),
        items=catalogue,
        dropped={reason: int(found) for reason, found in unfinished.items()},
    )


def _items(path: Path) -> tuple[pl.DataFrame, TextTable]:
    """The items with title, year if there is one, and all other columns."""
    table = _read(path)
    item, title = _column(table, "item"), _column(table, "title")
    year = _column(table, YEAR, optional=True)
    table.require_ids(item)
    table.require_unique(item)
    names = {item: "item", title: "title"}
    others = [column for column in table.frame.columns if column not in names]
    if year:
        names[year] = YEAR
    return table.frame.select(item, title, *others).rename(names), table


def _read(path: Path) -> TextTable:
    return read_text_table(path, form=TextFormat(separator=",", quoted=True))


def _column(table: TextTable, role: str, *, optional: bool = False) -> str:
    """The name that the file gives to a column; "" for an optional one that it lacks."""
    names = table.frame.columns
    if role in names:
        return role
    known = (_ALIASES[role], _FURTHER[role])
    first, further = ([name for name in names if folded(name) in group] for group in known)
    found = first or further
    if len(found) > 1:
        raise UserError(
            f"{table.name}, line 1: {shown(found)} could each be the {role}; name the right one {role!r}"
        )
    if not found and not optional:
        raise UserError(
            f"{table.name}, line 1: no column {role!r} among {shown(names)}; add it, with commas between columns"
        )
    return found[0] if found else ""
