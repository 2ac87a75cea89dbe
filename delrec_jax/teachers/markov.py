"""Markov: how often one item followed another, over distances of up to a few items."""

from collections.abc import Mapping

import numpy as np

from delrec_jax.teachers.item_to_item import (
    READ_ITEMS,
    ItemToItem,
    check_catalogue,
    item_to_item,
)
from delrec_jax.teachers.training_part import TrainingPart


class Markov:
    """Transition counts as a `registry.ClosedForm`.

    An item that came d items later counts 1 / d, up to `reach`. A row is divided by its sum plus `smoothing`, so that items
    that were seen a few times do not count as much as common ones.
    """

    title = "Markov"
    max_length = READ_ITEMS
    grid: Mapping[str, tuple[float, ...]] = {
        "reach": (3.0, 1.0, 6.0, 10.0),
        "smoothing": (3.0, 1.0, 10.0, 30.0),
    }

    def fit(self, train: TrainingPart, *, reach: float, smoothing: float) -> ItemToItem:
        """Counts the transitions of all users.

        Raises:
          UserError: the catalogue is too large.
        """
        from scipy import sparse  # imported late: a tenth of a second

        check_catalogue("Markov", train.num_items)
        users, items = train.users, train.items
        shape = (train.num_items, train.num_items)
        counts = sparse.csr_matrix(shape, dtype=np.float64)
        for distance in range(1, int(reach) + 1):
            same = users[:-distance] == users[distance:]
            pairs = items[:-distance][same], items[distance:][same]
            weights = np.full(len(pairs[0]), 1.0 / distance)
            counts += sparse.csr_matrix((weights, pairs), shape=shape)
        counts.setdiag(0.0)  # where items are repeated: an item says nothing about itself
        sums = np.asarray(counts.sum(axis=1))  # [I, 1]
        return item_to_item(counts.toarray() / (sums + smoothing))


MARKOV = Markov()
"""Transition counts."""
