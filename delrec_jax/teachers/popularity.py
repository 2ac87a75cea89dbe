"""The simplest recommender and the first control: how often each item occurs in training."""

from collections.abc import Mapping

import chex
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.teachers.training_part import TrainingPart


class PopularityTeacher(struct.PyTreeNode):
    """Scores every item by its count, whatever the history.

    Attributes:
      counts: interactions per item in the training part, float32 [I] (exact up to
        16.7 million interactions per item).
    """

    counts: Float[Array, " I"]

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """The same counts for each row; ties remain and are left to the ranking."""
        chex.assert_rank(histories, 2)  # else a single history [L] would pass as L histories
        return jnp.broadcast_to(self.counts, (histories.shape[0], self.counts.shape[0]))


class Popularity:
    """Popularity as a `registry.ClosedForm`."""

    title = "popularity"
    max_length = 1
    grid: Mapping[str, tuple[float, ...]] = {}

    def fit(self, train: TrainingPart) -> PopularityTeacher:
        """Counts the interactions of each item, whatever the user; items without interactions score 0.

        Raises:
          UserError: an item index is outside the catalogue.
        """
        items, num_items = train.items, train.num_items
        if items.size and not 0 <= items.min() <= items.max() < num_items:
            raise UserError(
                f"training interactions: item indices {items.min()}..{items.max()} do not fit a "
                f"catalogue of {num_items} items; prepare interactions and catalogue together"
            )
        counts = np.bincount(items, minlength=num_items)
        return PopularityTeacher(counts=jnp.asarray(counts, dtype=jnp.float32))


POPULARITY = Popularity()
"""Popularity."""
