"""A recommender that is no network, as a fork would bring it: what came directly after the last item, how often."""

import itertools
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct


class Transitions(struct.PyTreeNode):
    """counts[i, j]: how often j came directly after i; padding (-1) reads the last row, which is empty."""

    counts: jnp.ndarray

    def scores(self, histories):
        """The row of the last item."""
        return self.counts[histories[:, -1]]


class FollowsLast:
    """Counts pairs of neighbours in the training part."""

    title = "what follows"
    max_length = 1
    grid: ClassVar = {}  # it has no settings

    def fit(self, train):
        """Counts."""
        items, num_items = train.items, train.num_items
        counts = np.zeros((num_items + 1, num_items), np.float32)
        for start, end in itertools.pairwise(train.offsets):
            np.add.at(counts, (items[start : end - 1], items[start + 1 : end]), 1)
        return Transitions(jnp.asarray(counts))


FOLLOWS_LAST = FollowsLast()
