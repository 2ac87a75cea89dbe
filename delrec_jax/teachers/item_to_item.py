"""Recommenders that add up what each item of the history says: item-to-item weights, or similarity of item vectors.

`ItemKNN`, `Markov`, `EASE`, `CEASE` and `TitleSimilarity` differ only in the matrix: the score of item j after a history is the
sum of matrix[i, j] over its items i. Recent items count more: an item of age a (0 = the latest) has the weight
floor + (1 - floor) * decay^a.
"""

from typing import Any, Self

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.precision import EXACT

READ_ITEMS = 512
"""The number of latest items of a history that these recommenders read."""

MOST_ITEMS = 20_000
"""The largest catalogue for which a matrix [I, I] is made: 1.6 GB in float32. Choosing CEASE holds up to nine of them."""

RECENCY_GRID = {"decay": (0.8, 0.4, 0.6, 0.9, 1.0), "floor": (0.0, 0.3)}
"""Weights by age that are tried by validation; the first of each is the default."""

# Where histories are this many times shorter than the catalogue, adding up rows is faster than a product with the matrix.
_ROWS_ARE_FASTER = 16


class ByRecency(struct.PyTreeNode):
    """What these recommenders share: weights by age.

    Attributes:
      recency: decay and floor, float32 [2].
    """

    recency: Float[Array, "2"]

    def weighted_by(self, *, decay: float, floor: float) -> Self:
        """The same recommender with other weights by age."""
        changed: Self = self.replace(recency=recency(decay, floor))
        return changed

    def _weights(self, histories: Int[Array, "B L"]) -> Float[Array, "B L"]:
        """The weight of each item of the histories; 0 at padding."""
        age = jnp.arange(histories.shape[1] - 1, -1, -1)
        decay, floor = self.recency
        return jnp.where(histories >= 0, floor + (1 - floor) * decay**age, 0.0)


class ItemToItem(ByRecency):
    """Scores by a matrix.

    Attributes:
      matrix: [I, I]; row i says what item i of a history adds to the score of each item.
    """

    matrix: Float[Array, "I I"]

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """The weighted sum of the rows of the latest items."""
        chex.assert_rank(histories, 2)
        histories = histories[:, -READ_ITEMS:]
        weights, items = self._weights(histories), jnp.maximum(histories, 0)
        rows, count = len(histories), self.matrix.shape[0]
        if histories.shape[1] * _ROWS_ARE_FASTER > count:
            given = jnp.zeros((rows, count)).at[jnp.arange(rows)[:, None], items].add(weights)
            return jnp.matmul(given, self.matrix, precision=EXACT)

        def add(sums: Array, place: tuple[Array, Array]) -> tuple[Array, None]:
            """Adds the rows of one position: items [B], weights [B]."""
            items, weights = place
            return sums + weights[:, None] * self.matrix[items], None

        start = jnp.zeros((rows, count), self.matrix.dtype)
        return jax.lax.scan(add, start, (items.T, weights.T))[0]


class VectorSimilarity(ByRecency):
    """Scores by the cosine between item vectors, which need no matrix [I, I].

    Attributes:
      vectors: [I, E], each of length 1 (or 0 for an item without a vector).
    """

    vectors: Float[Array, "I E"]

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """The weighted sum of the cosines with the latest items, without that of an item with itself."""
        chex.assert_rank(histories, 2)
        histories = histories[:, -READ_ITEMS:]
        weights, items = self._weights(histories), jnp.maximum(histories, 0)
        chosen = self.vectors[items]  # [B, L, E]
        wanted = jnp.einsum("bl,ble->be", weights, chosen, precision=EXACT)
        scores = jnp.matmul(wanted, self.vectors.T, precision=EXACT)
        own = weights * (chosen**2).sum(-1)
        return scores.at[jnp.arange(len(histories))[:, None], items].add(-own)


def recency(decay: float = 0.8, floor: float = 0.0) -> Float[Array, "2"]:
    """Decay and floor as an array, so that other values need no other program."""
    return jnp.asarray([decay, floor], jnp.float32)


def item_to_item(matrix: Any) -> ItemToItem:
    """The recommender of a matrix [I, I], whose diagonal is set to 0: an item says nothing about itself."""
    dense = np.array(matrix, np.float32)
    np.fill_diagonal(dense, 0.0)
    return ItemToItem(recency=recency(), matrix=jnp.asarray(dense))


def vector_similarity(vectors: Float[np.ndarray, "I E"]) -> VectorSimilarity:
    """The recommender of these item vectors: centered, then brought to length 1.

    Vectors of texts share a large common part; without centering, all cosines would be nearly equal.
    """
    return VectorSimilarity(
        recency=recency(), vectors=jnp.asarray(centered_unit(vectors), jnp.float32)
    )


def centered_unit(vectors: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    """The vectors minus their mean, each then divided by its length."""
    return unit_vectors(
        np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    )


def unit_vectors(vectors: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    """The vectors divided by their lengths; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float[np.ndarray, "N E"] = vectors / np.maximum(lengths, 1e-12)
    return unit


def check_catalogue(name: str, num_items: int) -> None:
    """Checks that the catalogue is small enough for a matrix [I, I].

    Raises:
      UserError: it is not.
    """
    if num_items > MOST_ITEMS:
        gigabytes = 4 * num_items**2 / 1e9
        raise UserError(
            f"{name}: a catalogue of {num_items} items needs a matrix of {gigabytes:.1f} GB, and {MOST_ITEMS} items are the "
            "most that it is made for: take another teacher.name, or leave it out of baselines.names or augment.teachers"
        )
