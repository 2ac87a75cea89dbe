"""The systems of the table, each as scores for all users' texts: what `evaluate` ranks and `recommend` asks."""

from collections.abc import Callable
from dataclasses import dataclass
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
from delrec_jax.stages.recommenders import first_cell, load_cell, load_teacher
from delrec_jax.stages.workspace import Workspace
from delrec_jax.teachers.popularity import popularity_teacher
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.training.steps import EvalStep

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
        """Scores of the whole catalogue [B, I] (`mean` and `first`)."""
        return self._catalogue(self._held(system), {"ids": ids})

    def candidates(
        self, system: LanguageSystem, ids: np.ndarray, candidates: np.ndarray
    ) -> jax.Array:
        """Scores of each text's candidates [B, C]."""
        return self._candidates(self._held(system), {"ids": ids, "candidates": candidates})


def language_systems(
    ws: Workspace, data: Data, language: Language
) -> dict[tuple[str, str], LanguageSystem]:
    """All language systems by (name in the table, labels)."""
    slots = language.slots

    def prompted(name: str, adapters: str | None = None) -> LanguageSystem:
        tree = None if adapters is None else language.put(assets.load_adapters(ws, adapters))
        prompt = language.put({"prompt": assets.load_prompt(ws, name)})["prompt"]
        return LanguageSystem(slots, prompt, tree)

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
    """Popularity and the teacher of `teach`."""
    read = RowHistories(data.split, part, ws.experiment.teacher.max_length)
    popularity = popularity_teacher(data.split.train.items, data.num_items)
    taught = load_cell(ws, data, first_cell(ws.experiment))
    return {
        "popularity": conventional_system(popularity, read),
        "teacher": conventional_system(taught, read),
    }


def augmented_system(ws: Workspace, data: Data, part: Part) -> dict[str, ConventionalSystem]:
    """The augmented teacher, where DELRec has one (method=delrec_p2rec)."""
    if ws.experiment.method != "delrec_p2rec":
        return {}
    read = RowHistories(data.split, part, ws.experiment.teacher.max_length)
    return {"teacher_augmented": conventional_system(load_teacher(ws, data), read)}


def conventional_system(teacher: Teacher, read: RowHistories) -> ConventionalSystem:
    """A teacher's scores, asked by rows of users."""
    return ConventionalSystem(lambda rows: _scores(teacher, read(rows)), read.by_length)


@jax.jit
def _scores(teacher: Any, histories: Any) -> jax.Array:
    """The teacher is an argument: recommenders of one shape share a compiled program."""
    return teacher.scores(histories)
