"""Keeps each user's best items while a system is ranked: from the same scores, where they are, in a program of its own.

The ranks of a batch and its best items are two programs on the batch's finished scores: neither is fused with what computes
the scores, so that items which tie for one tie for the other. Only ten items per user travel to the host. Over a mesh, each
device finds the best among its own columns (`teachers.best_items`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from delrec_jax.distributed import on_host
from delrec_jax.evaluation.top_lists import LENGTH
from delrec_jax.evaluation.user_ranks import RankFn
from delrec_jax.padding import PAD_ITEM
from delrec_jax.teachers.best_items import best_items
from delrec_jax.workdir.protocols import RowHistories


@jax.jit
def _only_scored(items: Int[Array, "B h"], scores: Float[Array, "B h"]) -> Int[Array, "B h"]:
    """The items, with -1 in place of those that cannot be recommended: seen, or with a score of -inf."""
    return jnp.where(jnp.isneginf(scores), PAD_ITEM, items)


class BestLists:
    """Collects the lists of one system.

    A list holds the best items that the user has not seen, items with equal scores in index order. That is the catalogue of the
    protocol `full`, but for a target that the user has had before (`data.repeats=keep`): it is ranked there, and in no list,
    which would otherwise hold one item of the history, the right one. An item with a score of -inf is not recommended.
    """

    def __init__(self, seen: RowHistories, num_items: int):
        """Collects nothing yet.

        Args:
          seen: all items that each user has seen, by row.
          num_items: size of the catalogue.
        """
        self._seen, self._count = seen, min(LENGTH, num_items)
        self._everything = np.ones(num_items, bool)
        self._parts: list[tuple[np.ndarray, Array]] = []

    def keeping(self, ranker: RankFn) -> RankFn:
        """The same ranker of scores [B, I], which also keeps the best items of every batch."""

        def rank(scores: Array, users: Int[np.ndarray, "B"]) -> tuple[Array, Array]:
            """Ranks a batch."""
            found = best_items(scores, self._seen(users), self._everything, count=self._count)
            self._parts.append((users, _only_scored(*found[:2])))
            return ranker(scores, users)

        return rank

    def collect(self) -> Int[np.ndarray, "U 10"]:
        """Returns the lists of all users, by row, padded with -1 at the end; all processes must call it."""
        lists = np.full((len(self._seen), LENGTH), PAD_ITEM, np.int32)
        for users, items in self._parts:
            # The padding of the last batch repeats a user, with the same list.
            lists[users, : self._count] = on_host(items)
        return lists
