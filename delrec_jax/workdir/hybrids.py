"""Hybrids: sums of several systems' standardized scores, with weights chosen by validation.

Scores of different systems have different scales, so each system's scores are standardized for each user, over the items that
the user has not seen. All weights start at 1. One after the other is moved to the value with the best NDCG@10 on the
validation users, but only where they gain more than one standard error: a few hundred users say little about small changes,
and equal weights are hard to beat. (On MovieLens-100K, weights that half of the validation users chose in this way were better
for the other half than the best weights without this rule.)
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from delrec_jax.config import BaselinesConfig
from delrec_jax.data.splits import Part, Split
from delrec_jax.distributed import on_host
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.ranking import rank_full, seen_items
from delrec_jax.teachers.standardised import standardised
from delrec_jax.workdir.protocols import RowHistories
from delrec_jax.workdir.systems import System
from delrec_jax.workdir.validation import BATCH, Validation

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Weights that are tried for each system."""

_SWEEPS = 5  # over all coordinates, at most; usually two suffice


_standardised = jax.jit(standardised)


@dataclass(frozen=True)
class Weighted:
    """Weights of a hybrid's systems, with what validation says of them.

    Attributes:
      weights: by system.
      valid_ndcg10: NDCG@10 of the hybrid on the validation users that chose.
      parts_ndcg10: NDCG@10 of each system alone on the same users.
    """

    weights: Mapping[str, float]
    valid_ndcg10: float
    parts_ndcg10: Mapping[str, float]

    @property
    def best_part(self) -> str:
        """The system that is best alone; the hybrid has to beat it."""
        return max(self.parts_ndcg10, key=lambda name: self.parts_ndcg10[name])


class Hybrid:
    """A weighted sum of systems as a system of its own."""

    def __init__(self, split: Split, systems: Mapping[str, System], weights: Mapping[str, float]):
        """Computes nothing yet; a system with weight 0 is never asked."""
        self._weights = weights
        self._standardised = StandardisedScores(split, systems)

    def scores(self, part: Part, rows: np.ndarray) -> Any:
        """The sum of standardized scores [B, I]."""
        asked = asked_parts(self._weights)
        return weighted_sum(
            {name: self._standardised(name, part, rows) for name in asked}, self._weights
        )

    def order(self, part: Part) -> np.ndarray | None:
        """The order of its first system that has one."""
        return self._standardised.order(asked_parts(self._weights), part)


def asked_parts(weights: Mapping[str, float]) -> list[str]:
    """The systems of a hybrid that have a weight."""
    return [name for name, weight in weights.items() if weight]


def weighted_sum(scores: Mapping[str, Array], weights: Mapping[str, float]) -> Any:
    """A hybrid's scores [B, I], from the standardized scores of (at least) the systems that have a weight."""
    sums: Any = 0.0
    for name in asked_parts(weights):
        sums = sums + weights[name] * scores[name]
    return sums


class StandardisedScores:
    """Standardizes the scores of systems, for each user over the items that the user has not seen."""

    def __init__(self, split: Split, systems: Mapping[str, System]):
        """Asks no system yet."""
        self._systems, self._seen = systems, _Seen(split)

    def __call__(self, name: str, part: Part, rows: np.ndarray) -> Float[Array, "B I"]:
        """The standardized scores of one system."""
        found = jnp.asarray(self._systems[name].scores(part, rows))
        scores: Array = _standardised(found, ~self._seen(part, rows, found.shape[1]))
        return scores

    def order(self, names: Iterable[str], part: Part) -> np.ndarray | None:
        """The order of the first of these systems that has one."""
        orders = (self._systems[name].order(part) for name in names)
        return next((order for order in orders if order is not None), None)


class _Seen:
    """Which items the users of a part have seen."""

    def __init__(self, split: Split):
        self._split = split
        self._histories: dict[Part, RowHistories] = {}

    def __call__(self, part: Part, rows: np.ndarray, num_items: int) -> Bool[Array, "B I"]:
        if part not in self._histories:
            self._histories[part] = RowHistories(self._split, part)
        found: Array = seen_items(self._histories[part](rows), num_items=num_items)
        return found


class HybridWeights:
    """Chooses the weights of any number of hybrids; each system is asked once."""

    def __init__(self, split: Split, config: BaselinesConfig, systems: Mapping[str, System]):
        """Asks no system yet."""
        self._validation = Validation(split, config)
        self._systems, self._seen_of = systems, _Seen(split)
        self._scores: dict[str, list[np.ndarray]] = {}
        self._batches: list[np.ndarray] = [
            self._validation.rows[start : start + BATCH]
            for start in range(0, len(self._validation), BATCH)
        ]
        self._targets = split.target("valid")
        self._masks: list[np.ndarray] = []
        self._common: HybridWeights | None = None

    def with_systems(self, systems: Mapping[str, System]) -> "HybridWeights":
        """Returns a chooser for these systems and its own; its own are scored once, for all choosers made this way."""
        found = copy(self)
        found._systems, found._scores, found._common = systems, {}, self
        return found

    def choose(self, parts: Sequence[str]) -> Weighted:
        """Returns the weights of these systems."""
        alone = {name: float(self._gains({name: 0.0}, name, (1.0,)).mean()) for name in parts}
        weights = dict.fromkeys(parts, 1.0)
        for _ in range(_SWEEPS):
            before = dict(weights)
            for name in parts:
                weights[name] = self._moved(weights, name)
            if weights == before:
                break
        value = self._gains(weights, parts[0], (weights[parts[0]],)).mean()
        return Weighted(weights, float(value), alone)

    def _moved(self, weights: Mapping[str, float], name: str) -> float:
        """Returns the best weight of one system; the one that it has unless another gains more than a standard error.

        The last system with a weight keeps it: alone its weight changes no rank, and without it there would be no scores.
        """
        if not any(weight for other, weight in weights.items() if other != name):
            return weights[name]
        gains = self._gains(weights, name, (weights[name], *WEIGHTS))  # [1 + W, U]
        differences = gains - gains[0]
        means = differences.mean(axis=1)
        errors = differences.std(axis=1) / differences.shape[1] ** 0.5
        sure = np.where(means > errors, means, 0.0)
        return (weights[name], *WEIGHTS)[int(sure.argmax())]

    def _standardised(self, name: str) -> list[np.ndarray]:
        """The standardized scores of one system for the validation users, by batch."""
        if self._common is not None and name not in self._systems:
            return self._common._standardised(name)
        if name not in self._scores:
            found = []
            for number, rows in enumerate(self._batches):
                scores = jnp.asarray(self._systems[name].scores("valid", rows))
                if len(self._masks) == number:
                    seen = self._seen_of("valid", rows, scores.shape[1])
                    self._masks.append(np.asarray(seen))
                found.append(on_host(_standardised(scores, ~self._masks[number])))
            self._scores[name] = found
        return self._scores[name]

    def _gains(
        self, weights: Mapping[str, float], moved: str, tried: Sequence[float]
    ) -> Float[np.ndarray, "W U"]:
        """The NDCG@10 of each validation user for each weight of the system that is moved."""
        scores = {name: self._standardised(name) for name in weights}
        found = []
        for number, rows in enumerate(self._batches):
            part = jnp.asarray(scores[moved][number])
            others = jnp.zeros_like(part)
            for name, weight in weights.items():
                if name != moved and weight:
                    others = others + weight * scores[name][number]
            mask, targets = jnp.asarray(self._masks[number]), self._targets[rows]
            # Summed before they are ranked, not in one program: that could round a target's score in two ways.
            ranks = [rank_full(others + weight * part, targets, mask)[0] for weight in tried]
            found.append(np.stack([_gain(np.asarray(rank, np.float64)) for rank in ranks]))
        return np.concatenate(found, axis=1)


def _gain(ranks: np.ndarray) -> np.ndarray:
    """NDCG@10 of each rank."""
    return metrics_of_ranks(ranks)["NDCG@10"]
