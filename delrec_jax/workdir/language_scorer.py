"""The language model as a system of the table: texts of histories in, scores of items out."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from delrec_jax.data import prompts
from delrec_jax.data.pipeline import bucket_length, make_buckets, pad_texts
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.assets import Language
from delrec_jax.workdir.workspace import Workspace


@dataclass(frozen=True)
class LanguageSystem:
    """The language model with one pattern, prompt and set of adapters.

    Attributes:
      pattern: tokens in the prompt's place: slots, words, or nothing.
      prompt: the soft prompt [K, D], when the pattern has slots.
      adapters: AdaLoRA's tree, when it is tuned.
    """

    pattern: np.ndarray
    prompt: jax.Array | None = None
    adapters: Any = None


class LanguageScorer:
    """Scores texts under any `LanguageSystem`; each combination of parts compiles once."""

    def __init__(self, ws: Workspace, language: Language):
        """Keeps the frozen model at hand."""
        self.language = language
        self.buckets = make_buckets(ws.experiment.prompts.max_tokens)
        ranker = language.ranker
        self._catalogue = EvalStep(
            lambda held, rows: ranker.catalogue_scores(ids=rows["ids"], **held), language.layout
        )
        self._candidates = EvalStep(
            lambda held, rows: ranker.candidate_scores(**rows, **held), language.layout
        )

    def _held(self, system: LanguageSystem) -> dict[str, Any]:
        return {
            "params": self.language.params,
            "vectors": self.language.vectors,
            "prompt": system.prompt,
            "adapters": system.adapters,
        }

    @property
    def _lists_candidates(self) -> bool:
        return bool(self.language.pieces.codes) or self.language.pieces.config.show_candidates

    @property
    def ranks_catalogue(self) -> bool:
        """Whether one text and one pass serve the whole catalogue: no candidates in the text, and none to be decoded."""
        return self.language.ranker.ranks_catalogue and not self._lists_candidates

    def texts(
        self, system: LanguageSystem, histories: list[np.ndarray], candidates=None
    ) -> np.ndarray:
        """LSR texts of histories, padded to one bucket; candidates stand in them where the config lists them."""
        listed = candidates is not None and self._lists_candidates
        shown = candidates if listed else [()] * len(histories)
        texts = [
            prompts.recommendation(
                self.language.pieces, history, pattern=system.pattern, candidates=items
            )
            for history, items in zip(histories, shown, strict=True)
        ]
        return pad_texts(texts, bucket_length(max(map(len, texts)), self.buckets))

    def catalogue(self, system: LanguageSystem, ids: np.ndarray) -> jax.Array:
        """Scores of the whole catalogue [B, I], where the verbalizer ranks it."""
        return self._catalogue(self._held(system), {"ids": ids})

    def candidates(
        self, system: LanguageSystem, ids: np.ndarray, candidates: np.ndarray
    ) -> jax.Array:
        """Scores of each text's candidates [B, C]."""
        return self._candidates(self._held(system), {"ids": ids, "candidates": candidates})
