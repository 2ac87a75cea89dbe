"""What users prefer, as shares of their items over categories: the targets of P2Rec's information reconstruction.

g_u[k] = (items of u's training part in category k) / (those in any category). Liu et al., arXiv 2406.00333.
"""

import numpy as np
from jaxtyping import Float32, Int32

from delrec_jax.data.interactions import Interactions


def preference_targets(
    train: Interactions, of_item: Int32[np.ndarray, "I"], count: int
) -> Float32[np.ndarray, "U K"]:
    """The share of each category among each user's items; an item that a user has twice counts twice.

    Args:
      train: the training part alone: what a user takes later must not be in his target.
      of_item: category of every item of the catalogue, 0..K-1; -1 = none, and the item does not count.
      count: K.

    Returns:
      Rows that sum to 1, in the order of the users; zeros for a user without an item of any category.

    Raises:
      ValueError: a category outside -1..K-1.
    """
    if of_item.size and not -1 <= of_item.min() <= of_item.max() < count:
        raise ValueError(
            f"categories run from {of_item.min()} to {of_item.max()}: expected -1 to {count - 1}"
        )
    users = np.arange(train.num_users).repeat(train.lengths)
    categories = of_item[train.items]
    counted = categories >= 0
    cells = users[counted] * count + categories[counted]
    counts = np.bincount(cells, minlength=train.num_users * count).reshape(-1, count)
    totals = counts.sum(axis=1, keepdims=True)
    return (counts / np.maximum(totals, 1)).astype(np.float32)
