"""How well predicted preferences meet users' own, user by user, and the baseline that any parser must beat.

A preference is a distribution over K categories, one row a user.
"""

import numpy as np
from jaxtyping import Float


def squared_errors(
    predicted: Float[np.ndarray, "U K"], targets: Float[np.ndarray, "U K"]
) -> Float[np.ndarray, "U"]:
    """The mean over the categories of the squared difference, float64."""
    return (np.subtract(predicted, targets, dtype=np.float64) ** 2).mean(axis=1)


def top_category_hits(
    predicted: Float[np.ndarray, "U K"], targets: Float[np.ndarray, "U K"]
) -> Float[np.ndarray, "U"]:
    """Whether the predicted top category is one of the user's own top categories.

    Where several predictions tie for the top, the share of them that hit, which is the expectation of drawing one.

    Args:
      predicted: shares or logits; a row with a NaN hits nothing.
      targets: the users' shares.

    Returns:
      Values in [0, 1], float64.

    Raises:
      ValueError: a user without a target, of whom every category would be the top.
    """
    empty = np.flatnonzero(~(targets > 0).any(axis=1))
    if empty.size:
        raise ValueError(f"row {empty[0]} of the targets has no category: leave such users out")
    guesses = predicted == predicted.max(axis=1, keepdims=True)
    right = guesses & (targets == targets.max(axis=1, keepdims=True))
    return right.sum(axis=1) / np.maximum(guesses.sum(axis=1), 1)


def constant_prediction(targets: Float[np.ndarray, "U K"]) -> Float[np.ndarray, "K"]:
    """The mean target of the training users: of all predictions that ignore the user, the one of least squared error.

    Args:
      targets: of the training users; a row of zeros (a user without a target) does not count.

    Returns:
      A distribution, float64.

    Raises:
      ValueError: no user has a target.
    """
    stated = np.asarray(targets, np.float64)[(targets > 0).any(axis=1)]
    if not len(stated):
        raise ValueError("no training user has an item of any category")
    return stated.mean(axis=0)
