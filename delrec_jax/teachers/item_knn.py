"""ItemKNN: items that the same users have (Sarwar et al., "Item-based Collaborative Filtering", WWW 2001)."""

from collections.abc import Mapping

import numpy as np

from delrec_jax.teachers.item_to_item import (
    READ_ITEMS,
    ItemToItem,
    check_catalogue,
    item_to_item,
)
from delrec_jax.teachers.training_part import TrainingPart


class ItemKNN:
    """ItemKNN as a `registry.ClosedForm`: the cosine of two items' users, for an item's nearest neighbors.

    Settings:
        shrink: added to the cosine's denominator, so that pairs of rare items count less.
        neighbors: number of neighbors that each item keeps; 0 = all.
    """

    title = "ItemKNN"
    max_length = READ_ITEMS
    grid: Mapping[str, tuple[float, ...]] = {
        "shrink": (10.0, 0.0, 50.0, 200.0),
        "neighbors": (0.0, 20.0, 100.0),
    }

    def fit(self, train: TrainingPart, *, shrink: float, neighbors: float) -> ItemToItem:
        """Counts the users of each pair of items.

        Raises:
          UserError: the catalogue is too large.
        """
        check_catalogue("ItemKNN", train.num_items)
        counts = train.co_occurrences
        own = np.sqrt(np.diag(counts))
        similar = counts / np.maximum(own[:, None] * own[None, :] + shrink, 1e-12)
        np.fill_diagonal(similar, 0.0)
        if 0 < neighbors < train.num_items:
            kept = int(neighbors)
            least = np.partition(similar, -kept, axis=1)[:, -kept, None]
            similar[similar < least] = 0.0
        return item_to_item(similar)


ITEM_KNN = ItemKNN()
"""ItemKNN."""
