"""Titles that match what somebody types, found on the server: a browser is never sent the catalogue."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

SHOWN = 8
"""How many matches are shown."""

_LONGEST = 200  # characters of a search that are read


class Matches(NamedTuple):
    """What a search found.

    Attributes:
      items: item numbers of the best matches, at most `SHOWN`.
      total: how many titles match.
    """

    items: tuple[int, ...]
    total: int


class Search:
    """Finds titles by words."""

    def __init__(self, titles: Sequence[str]):
        """Reads the titles of the catalogue, by item number."""
        self._titles = pl.Series([title.casefold() for title in titles], dtype=pl.String)

    def __call__(self, text: str) -> Matches:
        """Returns the titles that contain every word of a text; case does not matter, nor does the order of the words.

        The title that is the text comes first, then those that begin with it; otherwise they stand in the catalogue's order.
        No words match every title.
        """
        typed = text[:_LONGEST].casefold().strip()
        found = pl.lit(True)
        for word in typed.split():
            found &= pl.col("title").str.contains(word, literal=True)
        table = pl.DataFrame({"title": self._titles}).with_row_index("item").filter(found)
        if typed:
            title = pl.col("title")
            table = table.sort(title != typed, ~title.str.starts_with(typed), "item")
        return Matches(tuple(table["item"].head(SHOWN).to_list()), len(table))
