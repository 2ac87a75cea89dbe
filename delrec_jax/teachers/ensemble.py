"""Recommenders that were trained apart, as one: their scores are standardized and added."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int


class Ensemble(struct.PyTreeNode):
    """A `Teacher` whose scores are the sum of the standardized scores of others, all with the same weight (as in EnsRec).

    Attributes:
        parts: the recommenders, each a `Teacher`.
    """

    parts: tuple[Any, ...]

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """The sum of the parts' scores of all items, each with mean 0 and variance 1 over the catalogue in every row."""
        found = [standardised_rows(part.scores(histories)) for part in self.parts]
        return jnp.stack(found).sum(axis=0)


def standardised_rows(scores: Float[Array, "B I"]) -> Float[Array, "B I"]:
    """Each row minus its mean and divided by its standard deviation; a row of equal scores becomes zeros."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = jnp.sqrt((centred**2).mean(axis=1, keepdims=True))
    return centred / jnp.where(spread > 0, spread, 1.0)
