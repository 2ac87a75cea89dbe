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
          UserError: the catalogue is too large, or the matrix has no inverse.
        """
        check_catalogue(self.title, train.num_items)
        return linear(self.title, train.co_occurrences, penalty)


def linear(title: str, gram: Float[np.ndarray, "I I"], penalty: float) -> ItemToItem:
    """The recommender with the weights of `ease_weights`.

    Args:
      title: its name in messages.
      gram: X^T X of what the weights explain.
      penalty: as in `ease_weights`.

    Raises:
      UserError: their sum has no inverse.
    """
    try:
        weights = ease_weights(gram, penalty)
    except np.linalg.LinAlgError as error:
        raise UserError(f"{title}: {error}; give a larger penalty") from error
    return ItemToItem(recency=recency(), matrix=jnp.asarray(weights))


def ease_weights(gram: Float[np.ndarray, "I I"], penalty: float) -> Float[np.ndarray, "I I"]:
    """The weights B, with a diagonal of 0, that minimize ||X - X B||^2 + penalty ||B||^2.

    LAPACK inverts a positive definite matrix in I^3 multiplications, on the host; XLA's solver needs more than twice as many.

    Args:
      gram: X^T X.
      penalty: lambda, positive.

    Returns:
      A new matrix. Beside it and `gram`, one more of this size is held for a moment.

    Raises:
      LinAlgError: gram + penalty I is not positive definite in float32.
    """
    from scipy.linalg import lapack  # imported late: a tenth of a second

    # LAPACK wants columns in a row; the transpose of a symmetric matrix is the same matrix in that order.
    summed = np.array(gram, np.float32, order="C").T
    summed[np.diag_indices_from(summed)] += np.float32(penalty)
    factor, failed = lapack.spotrf(summed, lower=1, overwrite_a=1)
    lower, not_inverted = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or not_inverted:
        raise np.linalg.LinAlgError(
            f"the matrix of common users is not positive definite with a penalty of {penalty:g}"
        )
    scale = -1.0 / np.diag(lower)
    weights: Float[np.ndarray, "I I"] = np.triu(lower.T, 1)
    weights += weights.T
    weights *= scale
    return weights


EASE_WEIGHTED = EASE()
"""The recommender EASE; `ease_weights` are its weights."""
