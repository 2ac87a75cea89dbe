"""`delrec_jax.load`: a finished run, or a model from a hub, that answers questions in Python."""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Float

from delrec_jax.data.interactions import Catalogue
from delrec_jax.data.splits import Split
from delrec_jax.data.title_tokens import Ids
from delrec_jax.distributed import on_host
from delrec_jax.errors import UserError
from delrec_jax.padding import PAD_TOKEN
from delrec_jax.serving.asked import as_list, asked_split, check_items, check_number
from delrec_jax.serving.listing import ListingSystem
from delrec_jax.serving.parts import Parts
from delrec_jax.serving.run_parts import RunParts
from delrec_jax.serving.served_systems import Answering
from delrec_jax.serving.stated_candidates import Lists, Rows, among, filled_batch
from delrec_jax.serving.titles import By, Names
from delrec_jax.teachers.best_items import best_items
from delrec_jax.workdir.language_model import text_with_slots
from delrec_jax.workdir.language_scorer import CatalogueSystem
from delrec_jax.workdir.protocols import RowHistories
from delrec_jax.workdir.systems import System
from delrec_jax.workdir.workspace import Workspace

BATCH = 256
"""Histories that are scored at once; fewer are asked in batches of 1, 2, 4, ... so that few shapes are compiled."""

SCHEMA = {
    "history": pl.Int64,
    "rank": pl.Int64,
    "item": pl.String,
    "title": pl.String,
    "score": pl.Float32,
}
"""Columns of ranked lists."""


class Recommender:
    """The systems of a finished run, asked about any history of items of its catalogue.

    Attributes:
      parts: what they are made of.
      systems: names of the systems that can be asked, as in the results: `teacher`, `ease`, `delrec`, hybrids and so on.
      main: the system that is asked unless another is named: the last of the run's method.
      titles: the catalogue, by item number.
      item_ids: its ids in the source.
    """

    def __init__(self, run: Workspace | Parts):
        """Opens a run; a system is loaded when it is first asked.

        Args:
          run: the run's workdir, with at least `teach` finished; or the parts of a model from a hub.

        Raises:
          UserError: the run is not finished.
        """
        self.parts: Parts = RunParts(run) if isinstance(run, Workspace) else run
        self._answering = Answering(self.parts)
        self._names = Names(self.parts.catalogue)
        self.systems, self.main = self._answering.names, self.parts.main
        self.titles, self.item_ids = self.parts.catalogue.titles, self.parts.catalogue.ids

    def recommend(
        self, history: Sequence[str], k: int = 10, *, system: str | None = None, by: By = "title"
    ) -> pl.DataFrame:
        """Returns the best unseen items after one history.

        Args:
          history: titles, oldest first; case and surrounding spaces do not matter.
          k: length of the list.
          system: one of `systems`; None = `main`.
          by: `id` if the history names items by the ids of the source.

        Returns:
          Columns rank (from 1), item (its id), title, score; comparable within one list only.

        Raises:
          UserError: an unknown title or system, or a k beyond the items that the system can rank.
        """
        return self.rank([history], k=k, system=system, by=by).drop("history")

    def rank(
        self,
        histories: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]] | None = None,
        *,
        k: int | None = None,
        system: str | None = None,
        by: By = "title",
    ) -> pl.DataFrame:
        """Ranks items after each of many histories, in batches.

        Args:
          histories: titles of each, oldest first.
          candidates: for each history, the items to rank, seen or not, all of them different; None = all unseen items.
          k: length of the lists; None = 10, or all candidates.
          system: one of `systems`; None = `main`.
          by: `id` if items are named by the ids of the source.

        Returns:
          Columns history (its place), rank, item, title, score, in this order; lists as long as k, or shorter where there are
          fewer candidates.

        Raises:
          UserError: an unknown title or system, a k beyond the items that the system can rank, or lists that do not fit.
        """
        histories = as_list(histories, "histories", "lists of items")
        many = len(histories) > 1
        rows = [
            self._names.items(named, by, place=f"history {number}" if many else "history")
            for number, named in enumerate(histories)
        ]
        listed = None if candidates is None else self._candidates(candidates, len(rows), by)
        return self.rank_items(rows, listed, k=k, system=system)

    def rank_items(
        self,
        histories: Sequence[Ids],
        candidates: Sequence[Ids] | None = None,
        *,
        k: int | None = None,
        system: str | None = None,
    ) -> pl.DataFrame:
        """`rank` where items are given by their numbers."""
        histories = as_list(histories, "histories", "lists of numbers")
        lists = self.ranked(histories, candidates, k=k, system=system) if histories else []
        return _table(lists, self._names.catalogue)

    def ranked(
        self,
        histories: Sequence[Ids],
        candidates: Sequence[Ids] | None = None,
        *,
        k: int | None = None,
        system: str | None = None,
    ) -> Lists:
        """`rank_items` as arrays: items [h] and scores [h] of each history's list, best first."""
        if k is not None and (not isinstance(k, int | np.integer) or k < 1):
            raise UserError(f"-k {k}: a list has a whole number of items, at least 1")
        check_items(histories, len(self.titles), "history")
        if candidates is not None:
            check_number(candidates, len(histories))
            check_items(candidates, len(self.titles), "candidates")
        split = asked_split(histories)
        asked = self._answering.system(system or self.main, split)
        ask = (
            self._unseen(asked, split, 10 if k is None else k)
            if candidates is None
            else among(asked, candidates, k)
        )
        order = asked.order("test")
        order = np.arange(len(histories)) if order is None else order
        lists: Lists = [(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(histories)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            for row, found in zip(rows, ask(filled_batch(rows)), strict=False):
                lists[row] = found
        return lists

    def readers(self, system: str) -> tuple[str, ...]:
        """Returns the language systems that a system asks: itself, those of its parts that are one, or none."""
        return self._answering.readers(system)

    def read_text(self, history: Ids, system: str) -> tuple[str, int]:
        """Returns the text that a language system reads after a history, and how many tokens it has.

        Args:
          history: item numbers, oldest first; at least one.
          system: one of `readers`.

        Returns:
          The text, in which the soft prompt is [P0], [P1] and so on; it holds the latest items only if not all fit.
        """
        split = asked_split([history])
        asked = self._answering.system(system, split)
        assert isinstance(asked, CatalogueSystem | ListingSystem), f"{system} reads no text"
        (ids,) = asked.texts("test", np.zeros(1, np.int64)).ids
        kept = ids[ids != PAD_TOKEN].tolist()
        language = self.parts.language
        return text_with_slots(language.tokenizer, kept, language.ranker.model.vocab_size), len(
            kept
        )

    @property
    def histories(self) -> Mapping[str, Ids]:
        """All items of each user of the corpus, oldest first, by the user's id; empty for a model from a hub."""
        return self.parts.histories

    @property
    def listed(self) -> int | None:
        """How many candidates DELRec's texts list, where it ranks those alone; None = it ranks the whole catalogue."""
        return None if self._answering.ranks_catalogue else self._answering.listed

    def items(self, named: Sequence[str], by: By = "title", *, place: str = "history") -> Ids:
        """Returns the numbers of named items; `place` says in messages where the names are from."""
        return self._names.items(named, by, place=place)

    def embed_items(self, *, tuned: bool = False) -> Float[np.ndarray, "I D"]:
        """Returns the vectors of all titles by the language model: its states over a title read alone, pooled as it says.

        Args:
          tuned: with DELRec's adapters.

        Raises:
          UserError: the run has no language model, or no tuned one.
        """
        language = self.parts.language
        if not tuned:
            return language.title_vectors
        if "delrec" not in self.systems:
            raise UserError("embed_items(tuned=True): this run has no finished `tune`")
        adapters = self._answering.language_system("delrec").adapters
        return np.asarray(language.tuned_vectors(adapters))[: len(self.titles)]

    def _unseen(self, asked: System, split: Split, k: int) -> Callable[[Rows], Lists]:
        """Finds the best k unseen items of rows."""
        most = len(self.titles) - int(split.seen_counts("test").max())
        if most < 1:
            raise UserError(
                "a history has every item of the catalogue: nothing is left to recommend"
            )
        if k > most:
            raise UserError(f"-k {k}: use 1 to {most}, the number of items not in the history")
        if isinstance(asked, ListingSystem) and k > asked.most:
            raise UserError(
                f"-k {k}: this run's language model ranks stated candidates only ({asked.why}), here the teacher's best "
                f"candidates.rerank = {asked.most}: use -k {asked.most} or less, or a run with a higher candidates.rerank"
            )
        seen, everything = RowHistories(split, "test"), np.ones(len(self.titles), bool)

        def found(rows: Rows) -> Lists:
            """The lists of these rows."""
            scores = jnp.asarray(asked.scores("test", rows))
            items, values, *_ = best_items(scores, seen(rows), everything, count=k)
            return list(zip(on_host(items), on_host(values), strict=True))

        return found

    def _candidates(self, named: Sequence[Sequence[str]], count: int, by: By) -> list[Ids]:
        named = as_list(named, "candidates", "lists of items")
        check_number(named, count)
        found = []
        for number, names in enumerate(named):
            items = self._names.items(names, by, place=f"candidates {number}")
            if len(set(items.tolist())) < len(items):
                raise UserError(f"candidates {number} names an item twice: name each once")
            found.append(items)
        return found


def _table(lists: Lists, catalogue: Catalogue) -> pl.DataFrame:
    lengths = [len(items) for items, _ in lists]
    items = np.concatenate([items for items, _ in lists]) if lists else np.zeros(0, np.int32)
    scores = np.concatenate([values for _, values in lists]) if lists else np.zeros(0, np.float32)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pl.DataFrame(
        {
            "history": np.repeat(np.arange(len(lists)), lengths),
            "rank": np.arange(len(items)) - starts + 1,
            "item": [catalogue.ids[item] for item in items],
            "title": [catalogue.titles[item] for item in items],
            "score": scores,
        },
        schema=SCHEMA,
    )
