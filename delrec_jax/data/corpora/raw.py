"""What a source says, before any rule of ours: the one form that every reader of raw files returns.

A reader knows a file format and nothing of k-cores or titles fit to be read; `tables.make_corpus` knows the rules and
nothing of formats. So each rule is applied, counted and tested once.
"""

import dataclasses
from collections.abc import Mapping

import polars as pl

ITEM_COLUMNS = ("item", "title")
YEAR = "year"
"""Name of the item column that holds the release year, where a source has one: it tells items of one title apart."""


@dataclasses.dataclass(frozen=True)
class RawTables:
    """A source's two tables.

    Attributes:
      name: The corpus' name in every report, such as "ml-100k".
      interactions: Columns `user` and `item` (String, as the source writes them), `time` (Int64, seconds since 1970 or
        positions) and, where the source has ratings, `rating` (Float64); rows in the order of the file.
      items: Columns `item` (String, unique) and `title` (String, "" where there is none), then any further String
        columns, which become the catalogue's attributes; a column named `year` is the release year.
      dropped: Reason to the number of rows that the reader left out ("interactions: ..." or "items: ...").
    """

    name: str
    interactions: pl.DataFrame
    items: pl.DataFrame
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
