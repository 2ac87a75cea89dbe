"""From vocabulary logits to item scores: `mean` and `index` (method.md, "the verbaliser").

`mean` scores an item by the mean log-probability of its title's tokens at the one decoder position after
MASK. The log-partition of that position is the same for every item, so up to a constant of the row

    score_i = mean_t (h . w_t) = h . (mean_t w_t):

one product of the hidden state with a matrix of item vectors ranks the whole catalogue, and the vocabulary
head is never multiplied. The constant changes no rank, no softmax over items and no gradient of one.

`index` scores a candidate by the logit of the one-token code that stands before its title in the text.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def title_matrix(titles: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Padded title tokens and their weights.

    Returns:
      tokens int32 [I, W] (0 where padded) and weights float32 [I, W] (1 / length, 0 where padded).

    Raises:
      ValueError: a title without tokens.
    """
    lengths = np.array([len(title) for title in titles])
    if (lengths == 0).any():
        raise ValueError(f"item {int(np.flatnonzero(lengths == 0)[0])} has a title without tokens")
    tokens = np.zeros((len(titles), lengths.max()), np.int32)
    for row, title in zip(tokens, titles, strict=True):
        row[: len(title)] = title
    weights = (np.arange(lengths.max()) < lengths[:, None]) / lengths[:, None]
    return tokens, weights.astype(np.float32)


def item_vectors(
    head: Float[Array, "V D"],
    tokens: Int[Array | np.ndarray, "I W"],
    weights: Float[Array | np.ndarray, "I W"],
) -> Float[Array, "I D"]:
    """Mean output vector of each title's tokens."""
    return jnp.einsum("iwd,iw->id", head[tokens].astype(jnp.float32), weights)


def mean_scores(hidden: Float[Array, "B D"], vectors: Float[Array, "I D"]) -> Float[Array, "B I"]:
    """Scores of the whole catalogue, up to a constant of the row."""
    return hidden.astype(jnp.float32) @ vectors.T


def mean_candidate_scores(
    hidden: Float[Array, "B D"], vectors: Float[Array, "I D"], candidates: Int[Array, "B C"]
) -> Float[Array, "B C"]:
    """Scores of the candidates alone, up to a constant of the row."""
    return jnp.einsum("bd,bcd->bc", hidden.astype(jnp.float32), vectors[candidates])


def index_scores(
    hidden: Float[Array, "B D"], head: Float[Array, "V D"], codes: Int[Array, "C"]
) -> Float[Array, "B C"]:
    """Logits of the candidates' codes: column c scores the candidate listed at place c."""
    return hidden.astype(jnp.float32) @ head[codes].astype(jnp.float32).T
