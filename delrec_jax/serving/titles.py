"""What people call items by: titles, or the ids of the source."""

import difflib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from delrec_jax.choices import one_of
from delrec_jax.data.interactions import Catalogue
from delrec_jax.data.title_tokens import Ids
from delrec_jax.errors import UserError

By = Literal["title", "id"]
"""How items are named; in titles, case and surrounding spaces do not matter."""

_NEAREST = 3


@dataclass(frozen=True)
class Names:
    """Finds the items that people name."""

    catalogue: Catalogue

    def items(
        self, named: Iterable[str] | None, by: By = "title", *, place: str = "history"
    ) -> Ids:
        """Returns the numbers of named items, int32, in their order.

        Args:
          named: titles, or ids of the source.
          by: which of the two.
          place: where the names come from, for messages.

        Raises:
          UserError: there is no name, or an unknown one; the nearest are told.
        """
        one_of("by", by, ("title", "id"))
        if isinstance(named, set | frozenset | Mapping):
            raise UserError(f"{place}: a {type(named).__name__} has no order; give a list of {by}s")
        if isinstance(named, str):
            raise UserError(f"{place}: {named!r} is one text; give a list of {by}s")
        if not (named is None or isinstance(named, Iterable)):
            raise UserError(f"{place}: {named!r} is no list; give a list of {by}s")
        named = None if named is None else list(named)
        if named is None or any(name is None for name in named):
            raise UserError(
                f"{place}: has an empty value (null): give lists of {by}s only, or leave the row out"
            )
        found = [self._item(str(name), by, place) for name in named]
        if not found:
            raise UserError(f"{place} is empty: give at least one {by}")
        return np.array(found, np.int32)

    def _item(self, name: str, by: By, place: str) -> int:
        """The item of this id or title; a title that is written as in the catalogue is that one's alone."""
        if by == "id":
            item = self._ids.get(name)
        elif (item := self._exact.get(_composed(name))) is None:
            several = self._titles.get(_composed(name).casefold(), ())
            if len(several) > 1:
                titles = "; ".join(self.catalogue.titles[one] for one in several)
                raise UserError(
                    f"{place}: {name!r} matches several items that differ only in case; write the one that is meant: {titles}"
                )
            item = several[0] if several else None
        if item is None:
            raise UserError(f"{place}: no item {self._unknown(name, by)}")
        return item

    def _unknown(self, name: str, by: By) -> str:
        if by == "id":
            return f"has the id {name!r}; ids are those of the corpus, such as {self.catalogue.ids[0]!r}"
        near = difflib.get_close_matches(
            _composed(name).casefold(), self._titles, n=_NEAREST, cutoff=0.3
        )
        titles = "; ".join(self.catalogue.titles[self._titles[key][0]] for key in near)
        hint = f"the nearest are: {titles}" if near else "no title is similar"
        return f"is called {name!r}; {hint}"

    @cached_property
    def _exact(self) -> Mapping[str, int]:
        return {_composed(title): item for item, title in enumerate(self.catalogue.titles)}

    @cached_property
    def _titles(self) -> Mapping[str, list[int]]:
        found: dict[str, list[int]] = {}
        for item, title in enumerate(self.catalogue.titles):
            found.setdefault(_composed(title).casefold(), []).append(item)
        return found

    @cached_property
    def _ids(self) -> Mapping[str, int]:
        return {name: item for item, name in enumerate(self.catalogue.ids)}


def _composed(title: str) -> str:
    """A title without spaces around it, its letters in one form: an accent may be typed as a character of its own."""
    return unicodedata.normalize("NFC", title.strip())
