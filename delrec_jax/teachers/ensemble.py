"""Recommenders that were made apart, as one: their scores are standardized, weighted and added."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from delrec_jax.teachers.standardised import standardised, unseen_items


class Ensemble(struct.PyTreeNode):
    """A `Teacher` whose scores are the weighted sum of the standardized scores of others.

    EASE, CEASE and Markov remember the very users that they are computed from, so an ensemble with them is much better on
    positions of the training part than on new ones; what is distilled from it there overstates how sure it is.

    Attributes:
      parts: the recommenders, each a `Teacher`.
      weights: float32 [P], one for each part; None = 1 for each (as in EnsRec).
      lengths: the number of a history's latest items that each part reads; None = all that are given.
      among_unseen: whether scores are standardized over the items that the history does not hold, and not over all items.
    """

    parts: tuple[Any, ...]
    weights: Float[Array, " P"] | None = None
    lengths: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)
    among_unseen: bool = struct.field(pytree_node=False, default=False)

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """The weighted sum; items of the history are scored too, on the scale of the others."""
        found = []
        for place, part in enumerate(self.parts):
            read = histories if self.lengths is None else histories[:, -self.lengths[place] :]
            scores = part.scores(read)
            among = unseen_items(histories, scores.shape[1]) if self.among_unseen else None
            weight = 1.0 if self.weights is None else self.weights[place]
            found.append(weight * standardised(scores, among))
        return jnp.stack(found).sum(axis=0)
