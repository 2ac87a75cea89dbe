"""How a prompt answers as the teacher would: top-1 agreement, Kendall's tau and likelihood over one text per row."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy import stats

from delrec_jax import prng
from delrec_jax.data.pipeline import make_buckets, padded_batches
from delrec_jax.data.title_tokens import Ids
from delrec_jax.delrec.material import PromptExample
from delrec_jax.delrec.pattern_simulating import listed_example
from delrec_jax.delrec.prompt_examples import PromptExamples
from delrec_jax.evaluation.metrics import bootstrap_interval
from delrec_jax.training.steps import EvalStep

MEASURES = {"agreement": "top-1 agreement", "kendall_tau": "Kendall tau"}
"""Fields of a `Reading` that are reported, and what tables call them."""


@dataclass(frozen=True)
class Exam:
    """Texts of all rows of a source, in one fixed order of the candidates.

    Attributes:
      examples: N texts.
      labels: float [N, C], higher is better: the teacher's scores, or 1 at the true next item.
      targets: float [N, C], the distribution to be reproduced.
    """

    examples: list[PromptExample]
    labels: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Reading:
    """How a prompt answers an exam: one value per text."""

    agreement: np.ndarray
    kendall_tau: np.ndarray
    likelihood: np.ndarray


def make_exam(examples: PromptExamples, pattern: Ids) -> Exam:
    """Asks every row once; the order of the candidates is drawn by (seed, row), so that a place tells nothing.

    Args:
      examples: their source decides text and labels.
      pattern: soft slots, or nothing.
    """
    material = examples.material
    asked, labels = [], []
    for row in range(len(examples)):
        rng = prng.generator(material.config.seed, "distill/order", row)
        if examples.source == "true":
            example = examples.labelled(row, rng)
            labels.append(example.targets)
        else:
            order = rng.permutation(material.lists.items.shape[1])
            example = listed_example(material, row, order, pattern=pattern)
            labels.append(material.lists.scores[row][order])
        asked.append(example)
    return Exam(asked, np.stack(labels), np.stack([example.targets for example in asked]))


@dataclass(frozen=True)
class Reader:
    """Asks a language model the questions of exams.

    Attributes:
      scores: (held, texts) -> scores of each text's candidates.
      batch_size: texts per batch.
      max_tokens: of the longest text.
    """

    scores: EvalStep
    batch_size: int
    max_tokens: int

    def read(self, held: Any, exam: Exam) -> Reading:
        """Compares the language model's order of each list with the labels'.

        Args:
          held: its weights, with the prompt.
          exam: the questions.
        """
        scores = []
        batches = padded_batches(
            exam.examples, batch_size=self.batch_size, buckets=make_buckets(self.max_tokens)
        )
        for batch, real in batches:
            scores.append(np.asarray(self.scores(held, batch))[:real])
        given = np.concatenate(scores)
        log_probabilities = jax.nn.log_softmax(given, axis=-1)
        return Reading(
            agreement=(given.argmax(1) == exam.labels.argmax(1)).astype(float),
            kendall_tau=np.array(
                [stats.kendalltau(a, b).statistic for a, b in zip(given, exam.labels, strict=True)]
            ),
            likelihood=np.asarray((exam.targets * log_probabilities).sum(1)),
        )


def agreement_rows(
    prompt: str, reading: Reading, users: np.ndarray, *, seed: int
) -> list[dict[str, Any]]:
    """Each measure's mean over users with a bootstrap interval, as `agreement.json` stores them.

    Args:
      prompt: its name.
      reading: one value per text.
      users: [N], whose text each is; a user's texts are averaged first.
      seed: of the bootstrap.
    """
    everyone, place = np.unique(users, return_inverse=True)
    rows = []
    for name, title in MEASURES.items():
        values = np.bincount(place, getattr(reading, name)) / np.bincount(place)
        value = bootstrap_interval(values, seed=seed)
        rows.append(
            {
                "prompt": prompt,
                "measure": title,
                "value": value.value,
                "ci_low": value.low,
                "ci_high": value.high,
                "users": len(everyone),
            }
        )
    return rows
