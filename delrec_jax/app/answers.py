"""What a click on the page computes, without the page: lists of several systems, compared with those of the last answer.

Everything that comes from a browser is checked here, and refused in words that fit on the page: they name no file.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from delrec_jax.analysis.labels import system_label
from delrec_jax.errors import UserError
from delrec_jax.serving.recommender import Recommender

MOST_ITEMS = 200
"""The longest history that is answered."""

MOST_LISTED = 100
"""The longest list that is shown."""

_FIRST_CHOICE = (
    *("teacher", "teacher_augmented"),
    *("lm_no_prompt", "lm_supervised", "lm_distilled_prompt", "delrec", "hybrid(delrec+teacher)"),
)


class Refused(UserError):
    """A question that is not answered; the message is for the page."""


@dataclass(frozen=True)
class Entry:
    """One line of a list.

    Attributes:
      rank: from 1.
      title: the item's.
      score: as the system gives it; comparable within a list only.
      change: places gained since the last answer, negative if lost; None: it was not in that list, or there was none.
    """

    rank: int
    title: str
    score: float
    change: int | None


@dataclass(frozen=True)
class Listing:
    """The list of one system.

    Attributes:
      label: the system's name for people.
      entries: best first.
      compared: whether the last answer has a list of this system.
      left: (title, rank there) of the items of that list that are no longer in this one.
      seconds: how long the system took.
      first: whether it was asked for the first time, so that the time includes loading and compiling it.
      among: how many of the teacher's best items it ranks, where the run's texts list candidates; None = the whole catalogue.
    """

    label: str
    entries: tuple[Entry, ...]
    compared: bool
    left: tuple[tuple[str, int], ...]
    seconds: float
    first: bool
    among: int | None


@dataclass(frozen=True)
class ReadText:
    """A text as a language model reads it, and the systems that read it.

    Attributes:
      labels: the systems' names for people.
      text: with the soft prompt as [P0], [P1] and so on.
      tokens: its length.
    """

    labels: tuple[str, ...]
    text: str
    tokens: int


@dataclass(frozen=True)
class Asked:
    """What the next answer is compared with.

    Attributes:
      history: titles, oldest first.
      lists: item numbers by system, best first.
    """

    history: tuple[str, ...]
    lists: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Answer:
    """What the page shows after a click.

    Attributes:
      asked: the question with its lists, for the next answer.
      before: the same of the last answer; None if there was none.
      listings: one per system.
      texts: what the language systems among them read; empty if there are none.
    """

    asked: Asked
    before: Asked | None
    listings: tuple[Listing, ...]
    texts: tuple[ReadText, ...]


class Answers:
    """Answers about one run.

    Attributes:
      labels: the systems that can be asked, with their names for people.
      chosen: those that are asked unless somebody chooses others.
      titles: the catalogue, by item number.
    """

    def __init__(self, recommender: Recommender, teacher: str):
        """Loads nothing yet.

        Args:
          recommender: the run.
          teacher: the name of its conventional recommender, for people.

        Raises:
          UserError: the run has no system that answers any history.
        """
        if not recommender.systems:
            raise UserError(
                "app: no system of this workdir answers a new history (teacher.name=lists knows those of its file only); "
                "use a run with another teacher"
            )
        self._recommender, self._loaded = recommender, set[str]()
        self.labels = {
            name: system_label(name, teacher, teachers=False) for name in recommender.systems
        }
        self.chosen = tuple(name for name in _FIRST_CHOICE if name in self.labels) or (
            recommender.main,
        )
        self.titles = recommender.titles

    def added(self, history: Sequence[int], item: object) -> tuple[int, ...]:
        """Returns a history (item numbers, oldest first) with one more item.

        Raises:
          Refused: there is no such item, or the history would be too long.
        """
        longer = (*history, item)
        self._checked_items(longer)
        return cast(tuple[int, ...], longer)

    def ask(
        self, history: Sequence[int], systems: Sequence[str], k: float, before: Asked | None
    ) -> Answer:
        """Returns the lists of some systems after a history.

        Args:
          history: item numbers, oldest first.
          systems: names out of `labels`.
          k: length of the lists.
          before: the question and the lists of the last answer, to compare with.

        Raises:
          Refused: the history is empty, too long or has unknown items, no system or an unknown one is named, or k is out of
            range.
        """
        items = self._checked_items(history)
        names = self._checked_systems(systems)
        count = self._checked_k(k, names, items)
        listings, lists = [], {}
        for name in names:
            last = before.lists.get(name) if before else None
            listing, lists[name] = self._listing(name, items, count, last)
            listings.append(listing)
        asked = Asked(tuple(self.titles[item] for item in items), lists)
        return Answer(asked, before, tuple(listings), self._texts(items, names))

    def _listing(
        self, name: str, items: np.ndarray, count: int, last: Sequence[int] | None
    ) -> tuple[Listing, tuple[int, ...]]:
        started = time.perf_counter()
        ((found, scores),) = self._recommender.ranked([items], k=count, system=name)
        seconds = time.perf_counter() - started
        best = tuple(found.tolist())
        places = {item: rank for rank, item in enumerate(last or (), start=1)}
        entries = tuple(
            Entry(rank, self.titles[item], score, places[item] - rank if item in places else None)
            for rank, (item, score) in enumerate(zip(best, scores.tolist(), strict=True), start=1)
        )
        left = tuple((self.titles[item], rank) for item, rank in places.items() if item not in best)
        first = name not in self._loaded
        self._loaded.add(name)
        among = self._among((name,))
        compared = last is not None
        return Listing(self.labels[name], entries, compared, left, seconds, first, among), best

    def _among(self, names: Sequence[str]) -> int | None:
        """How many candidates these systems rank at most; None = all items."""
        return self._recommender.listed if any(map(self._recommender.readers, names)) else None

    def _texts(self, items: np.ndarray, names: Sequence[str]) -> tuple[ReadText, ...]:
        """The different texts, each with all the systems that read it."""
        readers: dict[tuple[str, int], list[str]] = {}
        parts = [part for name in names for part in self._recommender.readers(name)]
        for name in dict.fromkeys(parts):
            readers.setdefault(self._recommender.read_text(items, name), []).append(name)
        return tuple(
            ReadText(tuple(self.labels[name] for name in found), text, tokens)
            for (text, tokens), found in readers.items()
        )

    def _checked_items(self, history: Sequence[object]) -> np.ndarray:
        if not history:
            raise Refused("The history is empty: search for a title and add it, or check one.")
        if len(history) > MOST_ITEMS:
            raise Refused(
                f"This history has {len(history):,} items; at most {MOST_ITEMS} are answered here."
            )
        if not all(isinstance(item, int) and 0 <= item < len(self.titles) for item in history):
            raise Refused("The history has an item that is not in the catalogue: clear it.")
        return np.array(history, np.int32)

    def _checked_systems(self, systems: Sequence[str]) -> tuple[str, ...]:
        if not systems:
            raise Refused("No system is chosen: choose at least one.")
        if not all(isinstance(name, str) and name in self.labels for name in systems):
            raise Refused("This run has no such system: choose among those that are offered.")
        return tuple(name for name in self.labels if name in systems)

    def _checked_k(self, k: float, names: Sequence[str], items: np.ndarray) -> int:
        """The length of lists as a whole number, if these systems can make lists so long."""
        most = min(MOST_LISTED, len(self.titles) - len(set(items.tolist())))
        most = min(most, self._among(names) or most)
        if most < 1:
            raise Refused(
                "The history has every item of the catalogue: nothing is left to recommend."
            )
        if not (isinstance(k, int | float) and 1 <= k <= most and k == int(k)):
            raise Refused(f"The length of the lists must be a whole number from 1 to {most}.")
        return int(k)
