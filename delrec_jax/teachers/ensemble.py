"""Recommenders that were trained apart, as one: their scores are standardized and added."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from delrec_jax.teachers.standardised import standardised


class Ensemble(struct.PyTreeNode):
    """A `Teacher` whose scores are the sum of the standardized scores of others, all with the same weight (as in EnsRec).

    Attributes:
        parts: the recommenders, each a `Teacher`.
    """

    parts: tuple[Any, ...]

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """The sum of the parts' scores of all items, each with mean 0 and variance 1 over the catalogue in every row."""
        found = [standardised(part.scores(histories)) for part in self.parts]
        return jnp.stack(found).sum(axis=0)
