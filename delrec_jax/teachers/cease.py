"""CEASE: EASE whose weights explain the items' texts too.

Jeunen et al., "Closed-Form Models for Collaborative Filtering with Side-Information", RecSys 2020, call it collective EASE.
"""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from jaxtyping import Float

from delrec_jax.errors import UserError
from delrec_jax.teachers.ease import linear
from delrec_jax.teachers.item_to_item import (
    READ_ITEMS,
    ItemToItem,
    centered_unit,
    check_catalogue,
)
from delrec_jax.teachers.training_part import TrainingPart


class CEASE:
    """Collective EASE as a `registry.ClosedForm`.

    The weights B of EASE minimize ||X - X B||^2 + weight ||T - T B||^2 + penalty ||B||^2: each item is told not only from the
    other items of the same users, but, with the same weights, from their texts T too. A rare item, of which users say little,
    gets its weights from its text. T is needed only as T^T T, the cosines between the texts of two items.

    Settings:
        penalty: lambda, the weight of the squared norm.
        weight: alpha, how many users' votes the texts are worth; with 0 it is EASE with one of these penalties, which are
            fewer than EASE's own: texts that say nothing do little harm.
    """

    max_length = READ_ITEMS
    grid: Mapping[str, tuple[float, ...]] = {
        "penalty": (100.0, 20.0, 300.0),
        "weight": (10.0, 0.0, 30.0, 100.0, 300.0),
    }

    def __init__(self, title: str, cosines: Callable[[TrainingPart], Float[np.ndarray, "I I"]]):
        """Computes nothing yet.

        Args:
          title: its name in prompts and tables.
          cosines: T^T T of the catalogue, positive semidefinite.
        """
        self.title, self._cosines = title, cosines

    def fit(self, train: TrainingPart, *, penalty: float, weight: float) -> ItemToItem:
        """Solves for the weights.

        Raises:
          UserError: the catalogue is too large, its titles have no words, or its vectors are not finite.
        """
        check_catalogue(self.title, train.num_items)
        gram = np.float32(weight) * self._cosines(train)
        gram += train.co_occurrences
        return linear(self.title, gram, penalty)


def vector_cease(title: str, vectors: Float[np.ndarray, "I E"]) -> CEASE:
    """CEASE with these item vectors as the texts: centered, then brought to length 1.

    Args:
      title: its name in messages.
      vectors: one for each item.

    Raises:
      UserError: they are not finite.
    """
    if not np.isfinite(vectors).all():
        raise UserError(
            f"{title}: the vectors of the items are not finite: the language model diverged"
        )

    @cache
    def cosines() -> Float[np.ndarray, "I I"]:
        unit = centered_unit(vectors).astype(np.float32)
        return unit @ unit.T

    return CEASE(title, lambda _: cosines())


TITLE_CEASE = CEASE("CEASE", lambda train: train.title_cosines)
"""CEASE with the words of titles (TF-IDF), which needs no language model."""
