"""The systems of the table, each as scores for all users' texts: what `evaluate` ranks and `recommend` asks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from delrec_jax.data import prompts
from delrec_jax.data.corpora.storefront_world import BEHAVIOUR_WORDS
from delrec_jax.data.pipeline import bucket_length, make_buckets, pad_texts
from delrec_jax.data.splits import Part
from delrec_jax.stages import assets
from delrec_jax.stages.assets import Data, Language
from delrec_jax.stages.protocols import RowHistories
from delrec_jax.stages.workspace import Workspace
from delrec_jax.teachers.popularity import popularity_teacher

ScoreUsers = Callable[[np.ndarray], Any]
_NO_PATTERN = np.zeros(0, np.int32)


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
        self._catalogue = jax.jit(
            lambda params, vectors, ids, prompt, adapters: ranker.catalogue_scores(
                params, ids, vectors=vectors, prompt=prompt, adapters=adapters
            )
        )
        self._candidates = jax.jit(
            lambda params, vectors, ids, candidates, prompt, adapters: ranker.candidate_scores(
                params, ids, candidates, vectors=vectors, prompt=prompt, adapters=adapters
            )
        )

    @cached_property
    def vectors(self) -> jax.Array | None:
        """One output vector a title: the head is frozen from stage 1 on, so one matrix serves every batch and system."""
        ranker = self.language.ranker
        return (
            jax.jit(ranker.item_vectors)(self.language.params) if ranker.ranks_catalogue else None
        )

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
        """Scores of the whole catalogue [B, I] (`mean` and `first`)."""
        return self._catalogue(
            self.language.params, self.vectors, ids, system.prompt, system.adapters
        )

    def candidates(
        self, system: LanguageSystem, ids: np.ndarray, candidates: np.ndarray
    ) -> jax.Array:
        """Scores of each text's candidates [B, C]."""
        return self._candidates(
            self.language.params, self.vectors, ids, candidates, system.prompt, system.adapters
        )


def language_systems(
    ws: Workspace, data: Data, language: Language
) -> dict[tuple[str, str], LanguageSystem]:
    """All language systems by (name in the table, labels)."""
    slots = language.slots

    def prompted(name: str, adapters: str | None = None) -> LanguageSystem:
        tree = None if adapters is None else assets.load_adapters(ws, adapters)
        return LanguageSystem(slots, assets.load_prompt(ws, name), tree)

    systems = {
        ("lm_no_prompt", "all"): LanguageSystem(_NO_PATTERN),
        ("lm_random_prompt", "all"): prompted("random"),
        ("lm_shuffled_prompt", "all"): prompted("shuffled"),
        ("lm_distilled_prompt", "all"): prompted("distilled"),
        ("lm_true_prompt", "all"): prompted("true"),
        ("lm_tuned_random_prompt", "all"): prompted("random", "random"),
        ("delrec", "all"): prompted("distilled", "distilled"),
    }
    if data.world is not None:
        words = language.ids(WORDS_OF_THE_STORE)
        systems["lm_words", "all"] = LanguageSystem(words)
    few = ws.experiment.tune.few_users
    if few:
        labels = f"{few}-users"
        systems["lm_true_prompt", labels] = prompted("true_few")
        systems["lm_tuned_random_prompt", labels] = prompted("random", "random_few")
        systems["delrec", labels] = prompted("distilled", "distilled_few")
    return systems


# What most of the storefront's customers do, in the words of pre-training: the best single instruction.
WORDS_OF_THE_STORE = BEHAVIOUR_WORDS["companion_next"][0]


@dataclass(frozen=True)
class ConventionalSystem:
    """A recommender that reads item numbers.

    Attributes:
      score_users: rows of a part's users -> scores [B, I].
      order: the rows, best scored in this order (by length of history).
    """

    score_users: ScoreUsers
    order: np.ndarray


def conventional_systems(ws: Workspace, data: Data, part: Part) -> dict[str, ConventionalSystem]:
    """Popularity and the teacher."""
    read = RowHistories(data.split, part, ws.experiment.teacher.max_length)
    popularity = popularity_teacher(data.split.train.items, data.num_items).scores
    scorers = {"popularity": popularity, "teacher": assets.load_teacher(ws, data)}
    return {name: _system(jax.jit(scores), read) for name, scores in scorers.items()}


def _system(scores: Any, read: RowHistories) -> ConventionalSystem:
    return ConventionalSystem(lambda rows: scores(read(rows)), read.by_length)
