"""What a pre-trained LM must be able to answer before anything is distilled into it.

A tiny T5 learns look-ups in jumps: for hundreds of steps nothing, then almost everything. A prompt distilled into a model
before its jump is noise, so the gate asks questions whose answers were held out, and says what to do if the model fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from delrec_jax import prng
from delrec_jax.config import Experiment, GateConfig
from delrec_jax.data import prompts
from delrec_jax.data.pipeline import make_buckets, pad_texts
from delrec_jax.data.sequential_recommendation import lsr_ids
from delrec_jax.data.splits import Split, padded_histories
from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.user_ranks import full_ranker, rank_users
from delrec_jax.language.family import answering
from delrec_jax.language.mean_scoring import averaged_rows, mean_scores
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.verbalizer import title_matrix
from delrec_jax.pretraining.texts import Material, attribute_question
from delrec_jax.training.sharding import Layout
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.prepared import Data

_CONTEXTS = 3  # histories in which each held-out "next volume" is asked
_MAX_QUESTIONS = 200
_MAX_USERS = 2_000  # asked for their next item
_REQUIRED = ("attributes", "next_in_series", "next_item")  # the marks that `pretrain.gate` names


@dataclass(frozen=True)
class _GateQuestions:
    """Questions with one right answer among options.

    Attributes:
      ids: int32 [N, T], the texts.
      answers: int32 [N], the right option.
      options: tokens and weights of every option, as `title_matrix` gives them.
    """

    ids: np.ndarray
    answers: np.ndarray
    options: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Gate:
    """The exams of a corpus and the marks required to pass."""

    exams: dict[str, _GateQuestions]
    seen: np.ndarray | None
    required: GateConfig
    ranker: Ranker
    scores: Any

    @classmethod
    def build(
        cls, config: Experiment, data: Data, material: Material, ranker: Ranker, layout: Layout
    ) -> "Gate":
        """Prepares the questions that this corpus allows.

        Raises:
          UserError: a mark is required for which this corpus has no questions.
        """
        titles = (ranker.title_tokens, ranker.title_weights)
        exams, seen = {}, None
        if material.attribute_values and material.config.attributes > 0:
            exams.update(_attribute_exams(config, material))
        if material.maps:
            exams["next_in_series"] = _series_exam(config, material, titles)
        if material.config.cloze + material.config.recent > 0:
            exams["next_item"], seen = _next_item_exam(config, data.split, material, titles)

        def scores(held: dict[str, Any], ids: Int[Array, "B T"]) -> Float[Array, "B O"]:
            """Scores of an exam's O options for each text."""
            params, tokens, weights = held["params"], held["tokens"], held["weights"]
            sentinels = jnp.full((ids.shape[0], 1), ranker.sentinel)
            model = answering(ranker.model, "pretrain", remedy="set lm.weights")
            hidden = model.answers(params, ids, sentinels)[:, 0]  # [B, D]
            return mean_scores(hidden, averaged_rows(model.head(params), tokens, weights))

        _check_possible(config.pretrain.gate, exams)
        return cls(exams, seen, config.pretrain.gate, ranker, EvalStep(scores, layout))

    def measure(self, params: Any) -> dict[str, float]:
        """HR@1 of each exam (HR@10 for `next_item`), the mean over attributes, and as `gate` the mean of the kinds of exams."""
        marks = {}
        for name, exam in self.exams.items():
            ranks = self._ranks(params, name, exam)
            values = metrics_of_ranks(ranks)["HR@10" if name == "next_item" else "HR@1"]
            marks[name] = float(values.mean())
        attributes = [mark for name, mark in marks.items() if name.startswith("attribute/")]
        if attributes:
            marks["attributes"] = float(np.mean(attributes))
        kinds = [marks[name] for name in _REQUIRED if name in marks]
        return marks | {"gate": float(np.mean(kinds))}

    def _ranks(self, params: Any, name: str, exam: _GateQuestions) -> np.ndarray:
        tokens, weights = exam.options
        held = {"params": params, "tokens": tokens, "weights": weights}
        ranker = full_ranker(exam.answers, self.seen if name == "next_item" else None)
        ranks = rank_users(
            lambda rows: self.scores(held, exam.ids[rows]),
            {"full": ranker},
            num_users=len(exam.ids),
            batch_size=min(128, len(exam.ids)),
        )
        return ranks["full"].rank

    def failed(self, marks: dict[str, float]) -> dict[str, float]:
        """Maps the exams of `measure` that were failed to the marks required; empty = passed."""
        required = {name: getattr(self.required, name) for name in _REQUIRED if name in marks}
        return {name: least for name, least in required.items() if marks[name] < least}


def _check_possible(required: GateConfig, exams: dict[str, _GateQuestions]) -> None:
    kinds = {"attributes" if name.startswith("attribute/") else name for name in exams}
    for name in _REQUIRED:
        if getattr(required, name) and name not in kinds:
            raise UserError(
                f"pretrain.gate.{name} is {getattr(required, name)}, but this corpus has no such questions; set it to 0"
            )


def _stack(texts: Sequence[np.ndarray]) -> np.ndarray:
    return pad_texts(texts, make_buckets(max(map(len, texts)))[-1])


def _attribute_exams(config: Experiment, material: Material) -> dict[str, _GateQuestions]:
    """One exam per attribute: questions about held-out items, or about all items if none is held out."""
    exams = {}
    items = (
        np.flatnonzero(material.heldout)
        if material.heldout.any()
        else np.arange(len(material.heldout))
    )
    items = prng.generator(config.seed, "lm/exam").permutation(items)[:_MAX_QUESTIONS]
    for name, values in material.attribute_values.items():
        asked = [int(item) for item in items if len(values[item])]
        options = sorted({tuple(value.tolist()) for value in values if len(value)})
        place = {option: index for index, option in enumerate(options)}
        if len(asked) == 0 or len(options) < 2:
            continue
        texts = [
            np.concatenate(
                [
                    attribute_question(material, name, item, material.sentinels[0]),
                    material.pieces.end,
                ]
            )
            for item in asked
        ]
        answers = np.array([place[tuple(values[item].tolist())] for item in asked], np.int32)
        options_matrix = title_matrix([list(option) for option in options])
        exams[f"attribute/{name}"] = _GateQuestions(_stack(texts), answers, options_matrix)
    return exams


def _next_item_exam(
    config: Experiment, split: Split, material: Material, titles: tuple[np.ndarray, np.ndarray]
) -> tuple[_GateQuestions, np.ndarray]:
    """Asks validation users, or a draw of many, for their next item; also returns what they have seen, int32 [N, L]."""
    targets = split.target("valid")
    drawn = prng.generator(config.seed, "lm/next").permutation(len(targets))[:_MAX_USERS]
    rows = np.sort(drawn)
    texts = [
        lsr_ids(material.pieces, history, pattern=prompts.NO_PATTERN)
        for history in split.histories("valid", rows)
    ]
    longest = int(split.history_lengths("valid")[rows].max())
    seen = padded_histories(split, "valid", longest, rows=rows)
    return _GateQuestions(_stack(texts), targets[rows], titles), seen


def _series_exam(
    config: Experiment, material: Material, titles: tuple[np.ndarray, np.ndarray]
) -> _GateQuestions:
    """Asks for the next volume with the full LSR template, where the answer is held out."""
    step, rng = material.maps["next_volume"], prng.generator(config.seed, "lm/series")
    sources = (
        np.flatnonzero(material.heldout[step]) if material.heldout.any() else np.arange(len(step))
    )
    sources = np.repeat(rng.permutation(sources)[:_MAX_QUESTIONS], _CONTEXTS)
    texts = []
    for source in sources:
        history = [*rng.integers(len(step), size=int(rng.integers(4))), int(source)]
        texts.append(lsr_ids(material.pieces, history, pattern=material.words["next_volume"][0]))
    return _GateQuestions(_stack(texts), step[sources], titles)
