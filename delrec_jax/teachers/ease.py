"""EASE: the best linear item-to-item weights in closed form (Steck, "Embarrassingly Shallow Autoencoders", WWW 2019)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from delrec_jax.teachers.item_to_item import (
    READ_ITEMS,
    ItemToItem,
    check_catalogue,
    recency,
)
from delrec_jax.teachers.training_part import TrainingPart


class EASE:
    """EASE as a `registry.ClosedForm`, computed on the device: one inverse of a matrix [I, I].

    Settings:
        penalty: lambda, the weight of the squared norm.
    """

    title = "EASE"
    max_length = READ_ITEMS
    grid: Mapping[str, tuple[float, ...]] = {"penalty": (100.0, 5.0, 20.0, 300.0, 1000.0)}

    def fit(self, train: TrainingPart, *, penalty: float) -> ItemToItem:
        """Solves for the weights.

        Raises:
          UserError: the catalogue is too large.
        """
        check_catalogue("EASE", train.num_items)
        return ItemToItem(recency=recency(), matrix=ease_weights(train.together, penalty))


@jax.jit
def ease_weights(together: Float[Array, "I I"], penalty: Float[Array, ""]) -> Float[Array, "I I"]:
    """The weights B, with a diagonal of 0, that minimize ||X - X B||^2 + penalty ||B||^2.

    Args:
        together: X^T X, how many users have both items.
        penalty: lambda, positive.
    """
    items = together.shape[0]
    identity = jnp.eye(items, dtype=together.dtype)
    factor = jax.scipy.linalg.cho_factor(together + penalty * identity)
    inverse = jax.scipy.linalg.cho_solve(factor, identity)
    return jnp.where(identity == 1, 0.0, -inverse / jnp.diag(inverse))


EASE_WEIGHTED = EASE()
"""The recommender EASE; `ease_weights` are its weights."""
