"""What users prefer, as shares of their items over latent categories (P2Rec, information reconstruction).

The target is g_u[k] = (items of u's text in category k) / (those in any category). Training minimizes the error of
a predicted distribution (`mse` is the paper's; the gradient of `kl` does not vanish where a prediction is confident and
wrong). Metrics compare predictions with the targets; any parser must beat the constant prediction. Liu et al., arXiv
2406.00333.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from delrec_jax.data.title_tokens import Items
from delrec_jax.errors import UserError


def preference_targets(
    histories: Sequence[Items], of_item: Int32[np.ndarray, "I"], count: int
) -> Float32[np.ndarray, "U K"]:
    """The share of each category among the items of each history; an item that comes twice counts twice.

    Args:
      histories: the items that each text shows, of the training part alone: later items must not enter a user's target.
      of_item: category of every item of the catalogue, 0..K-1; an item with -1 (none) does not count.
      count: K.

    Returns:
      Rows that sum to 1, in the order of the histories; zeros for a history without an item of any category.

    Raises:
      ValueError: a category outside -1..K-1.
    """
    if of_item.size and not -1 <= of_item.min() <= of_item.max() < count:
        raise ValueError(
            f"categories run from {of_item.min()} to {of_item.max()}: expected -1 to {count - 1}"
        )
    rows = np.arange(len(histories)).repeat([len(history) for history in histories])
    items = np.concatenate([np.zeros(0, np.int64), *histories]).astype(np.int64)
    categories = of_item[items]
    counted = categories >= 0
    cells = rows[counted] * count + categories[counted]
    counts = np.bincount(cells, minlength=len(histories) * count).reshape(-1, count)
    totals = counts.sum(axis=1, keepdims=True)
    shares: Float32[np.ndarray, "U K"] = (counts / np.maximum(totals, 1)).astype(np.float32)
    return shares


def distribution_error(
    logits: Float[Array, "B K"], targets: Float[Array, "B K"], kind: str
) -> Float[Array, "B"]:
    """The error of softmax(logits) for each example.

    Args:
      logits: logits of the K categories.
      targets: the users' shares; each row sums to 1.
      kind: `mse`, the mean over the categories of the squared difference, or `kl`, KL(target || softmax) in nats with
        0 log 0 = 0.

    Raises:
      UserError: unknown kind.
    """
    if kind == "mse":
        return ((jax.nn.softmax(logits, axis=-1) - targets) ** 2).mean(axis=-1)
    if kind == "kl":
        # log 1 stands in for log 0, whose product with 0 would be NaN.
        log_targets = jnp.log(jnp.where(targets > 0, targets, 1.0))
        return (targets * (log_targets - jax.nn.log_softmax(logits, axis=-1))).sum(axis=-1)
    raise UserError(f"parse.loss is {kind!r}: use 'mse' or 'kl'")


def squared_errors(
    predicted: Float[np.ndarray, "U K"], targets: Float[np.ndarray, "U K"]
) -> Float[np.ndarray, "U"]:
    """Each user's squared difference, averaged over the categories, float64."""
    differences = np.subtract(predicted, targets, dtype=np.float64)
    errors: Float[np.ndarray, " U"] = (differences**2).mean(axis=1)
    return errors


def top_category_hits(
    predicted: Float[np.ndarray, "U K"], targets: Float[np.ndarray, "U K"]
) -> Float[np.ndarray, "U"]:
    """Whether the predicted top category is one of the user's own top categories.

    If several predicted categories tie for the top, this is the share of them that hit: the expectation of drawing one.

    Args:
      predicted: shares or logits; a row with a NaN hits nothing.
      targets: the users' shares.

    Returns:
      Values in [0, 1], float64.

    Raises:
      ValueError: a user has no target, so every category would be a top category.
    """
    empty = np.flatnonzero(~(targets > 0).any(axis=1))
    if empty.size:
        raise ValueError(f"row {empty[0]} of the targets has no category: leave such users out")
    guesses = predicted == predicted.max(axis=1, keepdims=True)
    right = guesses & (targets == targets.max(axis=1, keepdims=True))
    hits: Float[np.ndarray, " U"] = right.sum(axis=1) / np.maximum(guesses.sum(axis=1), 1)
    return hits


def constant_prediction(targets: Float[np.ndarray, "U K"]) -> Float[np.ndarray, "K"]:
    """The mean target of the training users: of all predictions that ignore the user, the one with the least squared error.

    Args:
      targets: shares of the training users; a row of zeros (a user without a target) does not count.

    Returns:
      A distribution, float64.

    Raises:
      ValueError: no user has a target.
    """
    stated = np.asarray(targets, np.float64)[(targets > 0).any(axis=1)]
    if not len(stated):
        raise ValueError("no training user has an item of any category")
    mean: Float[np.ndarray, " K"] = stated.mean(axis=0)
    return mean
