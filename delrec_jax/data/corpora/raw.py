"""What a source contains, before any rule is applied: the common result of all readers of raw files.

A reader knows a file format and nothing about k-cores or clean titles; `tables.make_corpus` knows the rules and nothing
about formats. So each rule is applied, counted and tested in one place.
"""

import dataclasses
from collections.abc import Mapping

import polars as pl

ITEM_COLUMNS = ("item", "title")
YEAR = "year"
"""The item column with the release year, where a source has one: it distinguishes items with the same title."""


@dataclasses.dataclass(frozen=True)
class RawTables:
    """A source's two tables.

    Attributes:
      name: The corpus' name in reports, such as "ml-100k".
      interactions: Columns `user` and `item` (String, as the source writes them), `time` (Int64, seconds since 1970 or
        positions), where the source has ratings, `rating` (Float64), and where it splits its users itself, `part` (String,
        "train", "valid" or "test", the same in all rows of a user); in the order of the file.
      items: Columns `item` (String, unique) and `title` (String, "" where there is none), then any further String
        columns, which become the catalogue's attributes; a column named `year` is the release year.
      dropped: How many rows the reader left out, by reason ("interactions: ..." or "items: ...").
    """

    name: str
    interactions: pl.DataFrame
    items: pl.DataFrame
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
