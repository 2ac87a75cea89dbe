"""Latent categories: groups of items that a trained teacher treats alike (P2Rec, Liu et al., arXiv 2406.00333).

A network without an output bias has no other place for an item's popularity than the item's vector: there it is the largest
component, and k-means on the vectors as they are finds bands of popularity. `category_vectors` takes it out.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int32
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from delrec_jax.errors import UserError
from delrec_jax.prng import generator

NO_CATEGORY = -1

_STREAM = "latent-categories"
_STARTS = 10  # k-means keeps the best of them


@dataclass(frozen=True)
class Categories:
    """A grouping of the items.

    Attributes:
      of_item: int32 [I], 0..K-1, or -1 for an item without a category.
      centres: float32 [K, D], the mean vector of each category.
    """

    of_item: Int32[np.ndarray, " I"]
    centres: Float[np.ndarray, "K D"]

    @property
    def count(self) -> int:
        """K, the number of categories."""
        return len(self.centres)

    @property
    def sizes(self) -> Int[np.ndarray, " K"]:
        """The number of items in each category."""
        return np.bincount(self.of_item[self.of_item >= 0], minlength=self.count)


def category_vectors(
    vectors: Float[np.ndarray, "I D"], counts: Int[np.ndarray, " I"], *, popularity: str
) -> Float[np.ndarray, "I D"]:
    """The vectors that are grouped: with popularity taken out, or as the teacher has them.

    Args:
      vectors: the teacher's item table.
      counts: training interactions of each item.
      popularity: `residual`: from each column the part that a straight line in log(1 + count) explains is subtracted (least
        squares with intercept over the items that have an interaction), and the rest is scaled to unit length. `kept`: the
        vectors as they are.

    Returns:
      `residual`: float64, with zeros for items without an interaction. A vector that is not finite makes others so, which
      `latent_categories` reports.

    Raises:
      ValueError: an unknown `popularity`.
    """
    if popularity == "kept":
        return vectors
    if popularity != "residual":
        raise ValueError(f"popularity={popularity!r}: use residual or kept")
    known = counts > 0
    rows = np.asarray(vectors, np.float64)[known]
    rows = rows - rows.mean(axis=0)
    level = np.log1p(counts[known])
    level = level - level.mean()
    # If all items are equally popular, there is nothing to take out.
    rows -= np.outer(level, level @ rows / max(level @ level, np.finfo(np.float64).tiny))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    found = np.zeros(np.shape(vectors))
    found[known] = rows / np.where(lengths > 0, lengths, 1.0)
    return found


def latent_categories(
    vectors: Float[np.ndarray, "I D"], *, known: Bool[np.ndarray, " I"], count: int, seed: int
) -> Categories:
    """Groups the items by k-means on their vectors.

    Only known items are grouped and affect a center: the vectors of the others were never trained and carry no information.

    Args:
      vectors: from `category_vectors`.
      known: True for items with a training interaction.
      count: K.
      seed: seed of the starts; the same seed gives the same grouping.

    Raises:
      UserError: naming `parse.categories`: K is below 2 or above the number of known items, the known items have fewer
        than K distinct vectors (a category would be empty), or their vectors are not finite.
    """
    rows = np.asarray(vectors, np.float64)[known]
    _check(rows, count)
    start = int(generator(seed, _STREAM).integers(2**31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # empty clusters are an error below
        fitted = KMeans(count, n_init=_STARTS, random_state=start).fit(rows)
    found = len(np.unique(fitted.labels_))
    if found < count:
        raise UserError(
            f"parse.categories is {count}: the vectors of the {len(rows)} items with a training interaction form only {found} "
            "different groups, so categories would be empty; lower it, or train the teacher longer"
        )
    of_item = np.full(len(vectors), NO_CATEGORY, np.int32)
    of_item[known] = fitted.labels_
    return Categories(of_item, fitted.cluster_centers_.astype(np.float32))


def nearest_items(
    vectors: Float[np.ndarray, "I D"], categories: Categories, number: int
) -> list[Int[np.ndarray, " N"]]:
    """The members of each category that are nearest to its center, nearest first; at most `number` per category.

    Items at the same distance are in index order.
    """
    nearest = []
    for category, centre in enumerate(categories.centres):
        members = np.flatnonzero(categories.of_item == category)
        away = np.linalg.norm(np.asarray(vectors, np.float64)[members] - centre, axis=1)
        nearest.append(members[np.argsort(away, kind="stable")[:number]])
    return nearest


def _check(rows: Float[np.ndarray, "N D"], count: int) -> None:
    if count < 2:
        raise UserError(f"parse.categories is {count}: it must be at least 2")
    if count > len(rows):
        raise UserError(
            f"parse.categories is {count}: only {len(rows)} items have a training interaction; lower it"
        )
    broken = (~np.isfinite(rows)).any(axis=1).sum()
    if broken:
        raise UserError(
            f"parse.categories is {count}: the teacher's vectors of {broken} items are not finite, so they cannot be grouped; "
            "its training diverged: lower teacher.optimizer.learning_rate and train it again"
        )
