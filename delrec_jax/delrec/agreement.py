"""How closely a prompt's answers match the teacher's: top-1 agreement, Kendall's tau and likelihood, one text per row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from delrec_jax import prng
from delrec_jax.config import Experiment
from delrec_jax.data.evaluation_batches import padded_batches
from delrec_jax.data.pipeline import make_buckets
from delrec_jax.data.title_tokens import Ids
from delrec_jax.delrec.material import PromptExample
from delrec_jax.delrec.pattern_simulating import listed_example
from delrec_jax.delrec.prompt_examples import PromptExamples
from delrec_jax.evaluation.metrics import bootstrap_interval
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.language_model import Language

_PAIRS = 1 << 22

MEASURES = {"agreement": "top-1 agreement", "kendall_tau": "Kendall tau"}
"""Fields of a `Reading` that are reported, and their names in tables."""


@dataclass(frozen=True)
class Exam:
    """One question per row of a source, with its candidates in a fixed order.

    Attributes:
      examples: N texts.
      labels: float [N, C], higher is better: the teacher's scores, or 1 at the true next item.
      targets: float [N, C], the distribution to reproduce.
    """

    examples: list[PromptExample]
    labels: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Reading:
    """How a prompt did on an exam: per measure, one value for each text [N]."""

    agreement: np.ndarray
    kendall_tau: np.ndarray
    likelihood: np.ndarray


def make_exam(examples: PromptExamples, pattern: Ids) -> Exam:
    """Makes one question per row; candidates are shuffled by (seed, row), so that a position carries no information.

    Args:
      examples: the rows; their source decides the texts and labels.
      pattern: soft prompt slots, or nothing.
    """
    material = examples.material
    asked, labels = [], []
    for row in range(len(examples)):
        rng = prng.generator(material.config.seed, "distill/order", row)
        if examples.source == "true":
            example = examples.labelled(row, rng, pattern)
            labels.append(example.targets)
        else:
            order = rng.permutation(material.lists.items.shape[1])
            example = listed_example(material, row, order, pattern=pattern)
            labels.append(material.lists.scores[row][order])
        asked.append(example)
    return Exam(asked, np.stack(labels), np.stack([example.targets for example in asked]))


@dataclass(frozen=True)
class Reader:
    """Puts the questions of an exam to the frozen language model.

    Attributes:
      experiment: the run's config.
      language: the language model.
      scores: (held, texts) -> scores of each text's candidates.
    """

    experiment: Experiment
    language: Language
    scores: EvalStep

    def read(self, prompt: Any, readout: Mapping[str, Any] | None, exam: Exam) -> Reading:
        """Compares the language model's ranking of each list with that of the labels.

        Args:
          prompt: the soft prompt as texts read it.
          readout: parts of a readout; missing parts have their initial values.
          exam: the questions.
        """
        held = {
            "params": self.language.params,
            "vectors": self.language.vectors,
            "prompt": prompt,
            "readout": {**self.language.readout, **(readout or {})},
        }
        given = np.zeros(exam.labels.shape, np.float32)  # [N, C]
        buckets = make_buckets(self.experiment.prompts.max_tokens)
        size = self.experiment.evaluate.batch_size
        for batch, places in padded_batches(exam.examples, batch_size=size, buckets=buckets):
            given[places] = np.asarray(self.scores(held, batch))[: len(places)]
        log_probabilities = jax.nn.log_softmax(given, axis=-1)
        return Reading(
            agreement=(given.argmax(1) == exam.labels.argmax(1)).astype(float),
            kendall_tau=kendall_tau(given, exam.labels),
            likelihood=np.asarray((exam.targets * log_probabilities).sum(1)),
        )


def kendall_tau(a: Float[np.ndarray, "N C"], b: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N"]:
    """Kendall's tau-b of each row, as `scipy.stats.kendalltau` has it: ties count in the norm; NaN where a side ties entirely.

    Rows are compared pair by pair, C * C comparisons each, a few million at a time: no loop over rows.
    """
    size = max(1, _PAIRS // max(1, a.shape[1] ** 2))
    parts = [_tau(a[at : at + size], b[at : at + size]) for at in range(0, len(a), size)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _tau(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`kendall_tau` of all rows at once."""
    signs = [
        # Comparisons, since the difference of two infinite scores is no number.
        (x[:, :, None] > x[:, None, :]).astype(np.int8) - (x[:, :, None] < x[:, None, :])
        for x in (a, b)
    ]
    agreeing = np.einsum("nij,nij->n", *signs, dtype=np.int64)
    untied = [np.sqrt(np.count_nonzero(sign, axis=(1, 2)) / 2) for sign in signs]
    broken = np.isnan(a).any(1) | np.isnan(b).any(1) | (untied[0] == 0) | (untied[1] == 0)
    norms = [np.where(broken, 1.0, norm) for norm in untied]
    tau = np.clip(agreeing / 2 / norms[0] / norms[1], -1, 1)
    return np.where(broken, np.nan, tau)


def means_by_user(
    values: Float[np.ndarray, "N"], users: Int[np.ndarray, "N"]
) -> Float[np.ndarray, "U"]:
    """The mean over each user's texts, in ascending order of users."""
    place = np.unique(users, return_inverse=True)[1]
    found: np.ndarray = np.bincount(place, values) / np.bincount(place)
    return found


def mean_said(values: Float[np.ndarray, "N"]) -> float:
    """The mean over texts with a value; 0 if none has one."""
    said = values[~np.isnan(values)]
    return float(said.mean()) if len(said) else 0.0


def agreement_rows(
    prompt: str, reading: Reading, users: np.ndarray, *, seed: int
) -> list[dict[str, Any]]:
    """Each measure's mean over users with a bootstrap interval, as `agreement.json` stores them; none if no text says it.

    Args:
      prompt: name of the prompt.
      reading: one value per text.
      users: [N], the user of each text; a user's texts are averaged first.
      seed: seed of the bootstrap.
    """
    rows = []
    for name, title in MEASURES.items():
        found = getattr(reading, name)
        said = ~np.isnan(found)  # a list that one of the two ties entirely has no order
        if not said.any():
            continue
        values = means_by_user(found[said], users[said])
        value = bootstrap_interval(values, seed=seed)
        rows.append(
            {
                "prompt": prompt,
                "measure": title,
                "value": value.value,
                "ci_low": value.low,
                "ci_high": value.high,
                "users": len(values),
            }
        )
    return rows
