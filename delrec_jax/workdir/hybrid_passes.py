"""Ranks several hybrids in one pass over the users: each of their systems is asked once per batch, whoever shares it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array

from delrec_jax.data.splits import Split
from delrec_jax.evaluation.user_ranks import BatchRanks, RankFn, Ranks, fixed_batches
from delrec_jax.workdir.hybrids import StandardisedScores, asked_parts, weighted_sum
from delrec_jax.workdir.ranking_times import RankingTimes, Stopwatch
from delrec_jax.workdir.systems import System

Hybrids = Mapping[str, Mapping[str, float]]
"""Hybrids by name: the weights of their systems."""


class Together:
    """One pass over the test users, in batches of one shape."""

    def __init__(self, split: Split, systems: Mapping[str, System], hybrids: Hybrids):
        """Ranks nobody yet."""
        self._scores = StandardisedScores(split, systems)
        self._hybrids = hybrids
        self._parts = list(
            dict.fromkeys(name for weights in hybrids.values() for name in asked_parts(weights))
        )

    def order(self) -> np.ndarray | None:
        """The order of the first system that has one; None is that of the rows."""
        return self._scores.order(self._parts, "test")

    def rank(
        self,
        rankers: Mapping[str, Mapping[str, RankFn]],
        times: Mapping[str, RankingTimes],
        *,
        order: np.ndarray,
        batch_size: int,
    ) -> dict[str, dict[str, Ranks]]:
        """Ranks the users.

        Args:
          rankers: by hybrid, its rankers by protocol.
          times: by hybrid, what its times are added to: those of its own work, and those of all its systems.
          order: the rows to rank, in the order in which they are scored.
          batch_size: users per batch.

        Returns:
          By hybrid, what `user_ranks.rank_users` returns.
        """
        found = {name: BatchRanks(own) for name, own in rankers.items()}
        with Stopwatch().running() as stopwatch:
            for number, places in enumerate(fixed_batches(len(order), batch_size)):
                self._batch(order[places], found, times, stopwatch, first=number == 0)
        for one in times.values():
            one.passes += 1
        return {name: one.joined(order, what=name) for name, one in found.items()}

    def _batch(
        self,
        users: np.ndarray,
        found: Mapping[str, BatchRanks],
        times: Mapping[str, RankingTimes],
        stopwatch: Stopwatch,
        *,
        first: bool,
    ) -> None:
        parts = {name: stopwatch(self._scores, name, "test", users) for name in self._parts}
        scores = {name: one.made for name, one in parts.items()}
        for name, weights in self._hybrids.items():
            own = stopwatch(_add, found[name], scores, weights, users)
            asked = [parts[part] for part in asked_parts(weights)]
            seconds = own.seconds + sum(one.seconds for one in asked)
            compiled = own.compiled or any(one.compiled for one in asked)
            times[name].add(users, seconds, apart=first or compiled)


def _add(
    ranks: BatchRanks, scores: Mapping[str, Array], weights: Mapping[str, float], users: np.ndarray
) -> Any:
    return ranks.add(weighted_sum(scores, weights), users)
