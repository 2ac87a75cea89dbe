"""The language model as a system to be ranked: it turns texts of histories into scores of items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from delrec_jax.batches import Arrays, batch_type
from delrec_jax.data import prompts
from delrec_jax.data.evaluation_batches import padding_of
from delrec_jax.data.pipeline import bucket_length, make_buckets, pad_texts
from delrec_jax.data.sequential_recommendation import lsr_lengths, lsr_text
from delrec_jax.data.splits import Part, Split
from delrec_jax.data.title_tokens import Ids
from delrec_jax.language.ranker import Ranker
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.language_model import Language


@batch_type
class AskedTexts:
    """Texts to be scored.

    Attributes:
      ids: int32 [B, T].
      candidates: int32 [B, C]; None if the whole catalogue is scored.
      owners: int32 [B, T], the item that each token belongs to (`data.read_texts`); None if the verbalizer reads none.
      guides: float32 [B, D], what the teacher expects after each history; None if the prompt reads none.
    """

    ids: Int[Arrays, "B T"]
    candidates: Int[Arrays, "B C"] | None = None
    owners: Int[Arrays, "B T"] | None = None
    guides: Float[Arrays, "B D"] | None = None

    def rows(self, rows: Int[np.ndarray, " N"]) -> "AskedTexts":
        """Returns some of the texts."""
        found: AskedTexts = jax.tree.map(lambda array: array[rows], self)
        return found


@dataclass(frozen=True)
class LanguageSystem:
    """The language model with one pattern, prompt and set of adapters.

    Attributes:
      pattern: tokens in place of the prompt: slots, words, or nothing.
      prompt: the soft prompt [K, D], or that of `soft_prompt.slot_rows`, if the pattern has slots.
      adapters: AdaLoRA's tree, if the model is tuned.
      readout: the verbalizer's own parameters; None = as they start.
      step: the step of training at which the adapters (or, without adapters, the prompt) were selected; -1: none was.
      guides: histories -> what the teacher expects after each [B, D]; None unless the prompt reads it.
      beside: `teacher` if it was tuned beside the teacher's scores.
      vectors: the item vectors [I, D] that its adapters make; None = those of the frozen model.
    """

    pattern: Ids
    prompt: Any = None
    adapters: Any = None
    readout: Any = None
    step: int = -1
    guides: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None
    beside: str = ""
    vectors: Any = None


CATALOGUE_AXES = ("users", "catalogue")
"""Names of the axes of scores [B, I] by a language model, which stay split over the mesh until they are ranked."""

Scores = Callable[[Any, Any], jax.Array]
"""Maps (held weights, texts) to scores."""


def catalogue_scores(ranker: Ranker) -> Scores:
    """Returns a function that scores the whole catalogue [B, I] in one pass."""
    return lambda held, texts: ranker.catalogue_scores(**_read(texts), **held)


def candidate_scores(ranker: Ranker) -> Scores:
    """Returns a function that scores each text's own candidates [B, C]."""
    return lambda held, texts: ranker.candidate_scores(
        **_read(texts), candidates=texts.candidates, **held
    )


def _read(texts: Any) -> dict[str, Any]:
    return {"ids": texts.ids, "owners": texts.owners, "guides": texts.guides}


def text_shapes(max_tokens: int, rows: int) -> jax.ShapeDtypeStruct:
    """Returns the shape of texts that fill the largest bucket of this limit."""
    return jax.ShapeDtypeStruct((rows, make_buckets(max_tokens)[-1]), np.int32)


def ranks_catalogue(ranker: Ranker, config: prompts.PromptConfig) -> bool:
    """Returns whether one pass over one text scores the whole catalogue: no candidates are listed in it or decoded."""
    listed = config.show_candidates or ranker.verbalizer.lists_codes
    return ranker.ranks_catalogue and not listed


class LanguageScorer:
    """Scores texts under any `LanguageSystem`; each combination of parts compiles once.

    Attributes:
      language: the model.
      buckets: the lengths that texts are padded to, ascending.
    """

    def __init__(self, language: Language):
        """Prepares both kinds of scores of a frozen model."""
        self.language = language
        self.buckets = make_buckets(language.pieces.config.max_tokens)
        self._catalogue = EvalStep(
            catalogue_scores(language.ranker), language.layout, CATALOGUE_AXES
        )
        self._candidates = EvalStep(candidate_scores(language.ranker), language.layout)

    def _held(self, system: LanguageSystem) -> dict[str, Any]:
        return {
            "params": self.language.params,
            "vectors": self.language.vectors if system.vectors is None else system.vectors,
            "prompt": system.prompt,
            "adapters": system.adapters,
            "readout": self.language.readout if system.readout is None else system.readout,
        }

    @property
    def ranks_catalogue(self) -> bool:
        """Whether one pass over one text scores the whole catalogue: no candidates are listed in it or decoded."""
        return ranks_catalogue(self.language.ranker, self.language.pieces.config)

    def texts(
        self,
        system: LanguageSystem,
        histories: list[np.ndarray],
        candidates: Any = None,
        *,
        least: int = 0,
    ) -> AskedTexts:
        """Returns the LSR texts of histories, padded to one bucket; they contain the candidates if the config lists them.

        Args:
          system: its pattern and guides.
          histories: items, oldest first.
          candidates: those of each history [N, C]; None = the catalogue is ranked.
          least: the tokens that the texts are padded to at least, if none of them is longer.
        """
        listed = self._listed(candidates)
        shown = [()] * len(histories) if listed is None else listed
        texts = [
            lsr_text(self.language.pieces, history, system.pattern, items)
            for history, items in zip(histories, shown, strict=True)
        ]
        length = bucket_length(max([least, *(len(text.ids) for text in texts)]), self.buckets)
        owners = [text.owners for text in texts if text.owners is not None]
        return AskedTexts(
            ids=pad_texts([text.ids for text in texts], length),
            owners=pad_texts(owners, length) if owners else None,
            guides=system.guides(histories) if system.guides else None,
        )

    def lengths(
        self, system: LanguageSystem, histories: list[np.ndarray], candidates: Any = None
    ) -> Int[np.ndarray, " N"]:
        """Returns how many tokens the texts of these histories have, without making them; see `texts`."""
        shown = self._listed(candidates)
        return lsr_lengths(self.language.pieces, histories, system.pattern, shown)

    def _listed(self, candidates: Any) -> Any:
        return candidates if self.language.pieces.lists_candidates else None

    def catalogue(self, system: LanguageSystem, texts: AskedTexts) -> Float[jax.Array, "B I"]:
        """Scores the whole catalogue, for verbalizers that rank it; the scores stay split over the mesh."""
        return self._catalogue(self._held(system), texts)

    def candidates(
        self, system: LanguageSystem, texts: AskedTexts, candidates: np.ndarray
    ) -> Float[jax.Array, "B C"]:
        """Scores each text's candidates [B, C]."""
        return self._candidates(self._held(system), replace(texts, candidates=candidates))


class RowTexts:
    """The texts of a part's users, made as they are asked for; only their lengths are known before.

    They are padded as `evaluation_batches.padding_of` says.

    Attributes:
      order: the rows that are asked, those with short texts first; None if all texts are padded alike, so that no order is
        better.
    """

    def __init__(
        self,
        scorer: LanguageScorer,
        system: LanguageSystem,
        split: Split,
        part: Part,
        *,
        candidates: Int[np.ndarray, "E C"] | None = None,
        asked: Int[np.ndarray, " R"] | None = None,
    ):
        """Measures the texts and makes none.

        Args:
          scorer: makes them.
          system: its pattern and guides.
          split: has the histories.
          part: `valid` or `test`.
          candidates: those of each user of the part; None = the catalogue is ranked.
          asked: the rows that will be asked for; None = all of the part.

        Raises:
          UserError: a text is too long.
        """
        self._scorer, self._system, self._split, self._part = scorer, system, split, part
        self._candidates = candidates
        shown = candidates if asked is None or candidates is None else candidates[asked]
        lengths = scorer.lengths(system, split.histories(part, asked), shown)
        self._least, order = padding_of(lengths, scorer.buckets)
        self.order = order if order is None or asked is None else asked[order]

    def __call__(self, rows: Int[np.ndarray, " B"]) -> AskedTexts:
        """Returns the texts of rows of the part."""
        histories = self._split.histories(self._part, rows)
        candidates = None if self._candidates is None else self._candidates[rows]
        return self._scorer.texts(self._system, histories, candidates, least=self._least)


class CatalogueSystem:
    """A language system that scores the whole catalogue, as a `systems.System`."""

    def __init__(
        self,
        scorer: LanguageScorer,
        parts: LanguageSystem,
        split: Split,
        tested: Int[np.ndarray, " R"] | None = None,
    ):
        """Makes no texts yet.

        Args:
          scorer: scores texts.
          parts: prompt and adapters.
          split: the histories.
          tested: the rows of the test part that will be asked for; None = all of them.
        """
        self._scorer, self._parts, self._split, self._tested = scorer, parts, split, tested
        self._texts: dict[Part, RowTexts] = {}

    def scores(self, part: Part, rows: np.ndarray) -> jax.Array:
        """Scores the catalogue [B, I] for rows of a part."""
        return self._scorer.catalogue(self._parts, self.texts(part, rows))

    def texts(self, part: Part, rows: np.ndarray) -> AskedTexts:
        """Returns the texts that are read for rows of a part."""
        return self._of(part)(rows)

    def order(self, part: Part) -> np.ndarray | None:
        """Short texts first, where texts are padded to different lengths."""
        return self._of(part).order

    def _of(self, part: Part) -> RowTexts:
        if part not in self._texts:
            asked = self._tested if part == "test" else None
            self._texts[part] = RowTexts(self._scorer, self._parts, self._split, part, asked=asked)
        return self._texts[part]
