"""EASE: the best linear item-to-item weights in closed form (Steck, "Embarrassingly Shallow Autoencoders", WWW 2019)."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from delrec_jax.errors import UserError
from delrec_jax.teachers.item_to_item import (
    READ_ITEMS,
    ItemToItem,
    check_catalogue,
    recency,
)
from delrec_jax.teachers.training_part import TrainingPart


class EASE:
    """EASE as a `registry.ClosedForm`: one inverse of a matrix [I, I].

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
        check_catalogue(self.title, train.num_items)
        return linear(train.together, penalty)


def linear(gram: Float[np.ndarray, "I I"], penalty: float) -> ItemToItem:
    """The recommender with the weights of `ease_weights`."""
    return ItemToItem(recency=recency(), matrix=jnp.asarray(ease_weights(gram, penalty)))


def ease_weights(gram: Float[np.ndarray, "I I"], penalty: float) -> Float[np.ndarray, "I I"]:
    """The weights B, with a diagonal of 0, that minimize ||X - X B||^2 + penalty ||B||^2.

    LAPACK inverts a positive definite matrix in I^3 multiplications, on the host; XLA's solver needs more than twice as many.

    Args:
        gram: X^T X.
        penalty: lambda, positive.

    Raises:
        UserError: the sum has no inverse in float32.
    """
    from scipy.linalg import lapack  # imported late: a tenth of a second

    summed = np.array(gram, np.float32, order="F")
    summed[np.diag_indices_from(summed)] += np.float32(penalty)
    factor, failed = lapack.spotrf(summed, lower=1, overwrite_a=1)
    lower, not_inverted = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or not_inverted:
        raise UserError(
            f"EASE: the matrix of common users has no inverse with a penalty of {penalty:g}: it must be positive"
        )
    lower = np.tril(lower)
    scale = -1.0 / np.diag(lower)
    weights: Float[np.ndarray, "I I"] = (lower + np.tril(lower, -1).T) * scale
    np.fill_diagonal(weights, 0.0)
    return weights


EASE_WEIGHTED = EASE()
"""The recommender EASE; `ease_weights` are its weights."""
