"""Passes over the users that are ranked: of one system, or of hybrids that share the systems which they ask."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from delrec_jax.data.splits import Split
from delrec_jax.evaluation.user_ranks import RankFn, Ranks, ScoreFn, rank_users
from delrec_jax.workdir.best_lists import BestLists
from delrec_jax.workdir.hybrid_passes import Hybrids, Together
from delrec_jax.workdir.protocols import Protocols, RowHistories
from delrec_jax.workdir.ranking_times import RankingClock, RankingTimes
from delrec_jax.workdir.systems import System


@dataclass(frozen=True)
class Ranked:
    """What ranking a system gave, for users R in ascending order of their rows.

    Attributes:
      ranks: by protocol.
      best: int32 [R, 10], each user's best items, padded with -1; None if the catalogue was not ranked.
      times: what it took.
    """

    ranks: Mapping[str, Ranks]
    best: Int[np.ndarray, "R 10"] | None
    times: RankingTimes


class OrderedScores(NamedTuple):
    """What scores users, and the order of their rows in which it is best asked; None is ascending."""

    score: ScoreFn
    order: np.ndarray | None = None


class Passes:
    """Ranks the users of an evaluation, in batches of one shape."""

    def __init__(self, split: Split, protocols: Protocols, *, num_items: int, batch_size: int):
        """Ranks nobody yet.

        Args:
          split: has the histories.
          protocols: have the users.
          num_items: size of the catalogue.
          batch_size: users per batch, at most.
        """
        self._split, self._protocols = split, protocols
        self._num_items, self._batch_size = num_items, batch_size
        self._seen = RowHistories(split, "test")

    def alone(self, system: str, asked: OrderedScores, rankers: Mapping[str, RankFn]) -> Ranked:
        """Ranks a system.

        Args:
          system: its name, for errors.
          asked: what scores the users.
          rankers: by protocol.

        Raises:
          UserError: its scores cannot be ranked.
        """
        best, times, order = self._best(), RankingTimes(), self._order(asked.order)
        clock = RankingClock(times)
        with clock.running():
            found = rank_users(
                clock.scoring(asked.score),
                {
                    name: clock.ranking(ranker)
                    for name, ranker in _keeping_best(best, rankers).items()
                },
                num_users=len(self._protocols.targets),
                batch_size=min(self._batch_size, len(order)),
                what=system,
                order=order,
            )
        return Ranked(found, self._collected(best) if "full" in found else None, times)

    def together(
        self, systems: Mapping[str, System], hybrids: Hybrids, rankers: Mapping[str, RankFn]
    ) -> dict[str, Ranked]:
        """Ranks hybrids, and asks each of their systems once per batch.

        Args:
          systems: by name.
          hybrids: the weights of their systems, by name.
          rankers: by protocol.

        Raises:
          UserError: scores cannot be ranked.
        """
        pass_over = Together(self._split, systems, hybrids)
        best = {name: self._best() for name in hybrids}
        times = {name: RankingTimes() for name in hybrids}
        order = self._order(pass_over.order())
        found = pass_over.rank(
            {name: _keeping_best(one, rankers) for name, one in best.items()},
            times,
            order=order,
            batch_size=min(self._batch_size, len(order)),
        )
        return {
            name: Ranked(found[name], self._collected(best[name]), times[name]) for name in hybrids
        }

    def _order(self, order: np.ndarray | None) -> np.ndarray:
        """The rows that are ranked, in this order of all rows, or else ascending."""
        rows = self._protocols.rows
        return rows if order is None else order[np.isin(order, rows)]

    def _best(self) -> BestLists:
        return BestLists(self._seen, self._num_items)

    def _collected(self, best: BestLists) -> Int[np.ndarray, "R 10"]:
        lists: np.ndarray = best.collect()[self._protocols.rows]
        return lists


def _keeping_best(best: BestLists, rankers: Mapping[str, RankFn]) -> dict[str, RankFn]:
    """The same rankers; with that of `full`, the best items of every batch are kept."""
    return {
        name: best.keeping(ranker) if name == "full" else ranker for name, ranker in rankers.items()
    }
