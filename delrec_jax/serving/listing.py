"""DELRec where its text lists the candidates, or its verbalizer decodes them: it ranks stated candidates only."""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int

from delrec_jax.data.splits import Part, Split
from delrec_jax.distributed import on_host
from delrec_jax.teachers.best_items import best_items
from delrec_jax.workdir.language_scorer import AskedTexts, LanguageScorer, LanguageSystem
from delrec_jax.workdir.protocols import RowHistories, drawn_order
from delrec_jax.workdir.systems import System


@dataclass(frozen=True)
class ListingSystem:
    """The language model among another system's best unseen items, as a `System`; the score of all other items is -inf.

    Attributes:
      scorer: scores texts.
      parts: prompt and adapters.
      split: the histories.
      source: the system whose best items are listed.
      most: number of listed items.
      seed: of the order in which they are listed.
      why: the settings that make it so, for messages.
    """

    scorer: LanguageScorer
    parts: LanguageSystem
    split: Split
    source: System
    most: int
    seed: int
    why: str

    def scores(self, part: Part, rows: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B I"]:
        """Scores the catalogue for rows of a part."""
        found = self.source.scores(part, rows)
        listed = self._listed(part, rows, found)
        scores = np.full(found.shape, -np.inf, np.float32)
        np.put_along_axis(scores, listed, self.among(part, rows, listed), axis=1)
        return scores

    def texts(self, part: Part, rows: Int[np.ndarray, " B"]) -> AskedTexts:
        """Returns the texts that are read for rows of a part, with the items that `scores` lists."""
        return self._texts(part, rows, self._listed(part, rows, self.source.scores(part, rows)))

    def among(
        self, part: Part, rows: Int[np.ndarray, " B"], candidates: Int[np.ndarray, "B C"]
    ) -> Float[np.ndarray, "B C"]:
        """Scores stated candidates, listed in this order."""
        texts = self._texts(part, rows, candidates)
        return on_host(self.scorer.candidates(self.parts, texts, candidates))

    def _listed(
        self, part: Part, rows: Int[np.ndarray, " B"], scores: Float[jax.Array, "B I"]
    ) -> Int[np.ndarray, "B m"]:
        """The best unseen items by the source's scores, in the order in which they are listed."""
        seen, allowed = RowHistories(self.split, part)(rows), np.ones(scores.shape[1], bool)
        best = on_host(best_items(scores, seen, allowed, count=self.most)[0])
        # By what was asked: a history gets the same order wherever it stands among others.
        names = [",".join(map(str, one)) for one in self.split.histories(part, rows)]
        return drawn_order(best, [f"asked/{name}" for name in names], seed=self.seed)

    def _texts(
        self, part: Part, rows: Int[np.ndarray, " B"], candidates: Int[np.ndarray, "B C"]
    ) -> AskedTexts:
        return self.scorer.texts(self.parts, self.split.histories(part, rows), candidates)

    def order(self, part: Part) -> None:
        """All texts have one length, so the order does not matter."""
