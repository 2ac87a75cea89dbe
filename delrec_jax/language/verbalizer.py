"""From vocabulary logits to item scores: `first`, `mean` and `index` (method.md, "the verbaliser").

`mean` scores an item by the mean log-probability of its title's tokens at the one decoder position after
MASK. The log-partition of that position is the same for every item, so up to a constant of the row

    score_i = mean_t (h . w_t) = h . (mean_t w_t):

one product of the hidden state with a matrix of item vectors ranks the whole catalogue, and the vocabulary
head is never multiplied. The constant changes no rank, no softmax over items and no gradient of one.

`first` is the same with the title's first token alone; many titles share it, so it is there for comparison.

`index` scores a candidate by the logit of the one-token code that stands before its title in the text.

`sequence` needs the decoder at every token of a title: sequence_scoring.py.

Titles that a verbaliser cannot tell apart must tie exactly, for a tie gets the mean rank and a difference in the last bit
does not. No order of summation is promised to be the same for two columns of one product, so the score of the first of
them is given to all (`share_scores`).
"""

from collections import Counter
from collections.abc import Callable
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

KINDS = ("first", "mean", "sequence", "index")
CATALOGUE_KINDS = ("first", "mean")  # those that score the whole catalogue from one pass


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


def first_same_title(tokens: Int[np.ndarray, "I W"], kind: str) -> Int[np.ndarray, "I"]:
    """For each item the first item that the verbaliser cannot tell from it; itself where there is none before it.

    `first` sees the first token; `mean` sees how often each token occurs as a share of the title, in any order;
    `sequence` sees the whole sequence; `index` tells all items apart.

    Args:
      tokens: title tokens, 0 where padded.
      kind: the verbaliser.
    """
    if kind == "index":
        return np.arange(len(tokens), dtype=np.int32)
    read, first = _READINGS[kind], dict[Any, int]()
    keys = (read(row[row > 0].tolist()) for row in tokens)
    return np.array([first.setdefault(key, item) for item, key in enumerate(keys)], np.int32)


def _shares(title: list[int]) -> tuple[tuple[int, int], ...]:
    """Counts of the tokens in lowest terms: [a a b b] and [b a] have the same mean."""
    counts = Counter(title)
    common = gcd(*counts.values())
    return tuple(sorted((token, count // common) for token, count in counts.items()))


_READINGS: dict[str, Callable[[list[int]], Any]] = {
    "first": lambda title: title[0],
    "mean": _shares,
    "sequence": tuple,
}


def shared_titles(tokens: Int[np.ndarray, "I W"], kind: str) -> list[np.ndarray]:
    """Groups of two and more items whose scores are always equal under this verbaliser, as arrays of items."""
    representative = first_same_title(tokens, kind)
    order = np.argsort(representative, kind="stable")
    starts = np.flatnonzero(np.diff(representative[order])) + 1
    return [group for group in np.split(order, starts) if len(group) > 1]


def share_scores(scores: Float[Array, "B C"], groups: Int[Array, "B C"]) -> Float[Array, "B C"]:
    """Gives every candidate of a group the score of the row's first one of that group: their tie is exact."""
    place = jnp.argmax(groups[:, :, None] == groups[:, None, :], axis=-1)
    return jnp.take_along_axis(scores, place, axis=1)


def item_vectors(
    head: Float[Array, "V D"],
    tokens: Int[Array | np.ndarray, "... W"],
    weights: Float[Array | np.ndarray, "... W"],
) -> Float[Array, "... D"]:
    """Mean output vector of each title's tokens, one place of all titles at a time.

    All places at once would be [I, W, D]: 1.6 GB for 100,000 titles of 8 tokens and a width of 512.
    """

    def add(total: Array, place: tuple[Array, Array]) -> tuple[Array, None]:
        ids, shares = place
        return total + shares[..., None] * head[ids].astype(jnp.float32), None

    start = jnp.zeros((*tokens.shape[:-1], head.shape[1]), jnp.float32)
    places = (jnp.moveaxis(tokens, -1, 0), jnp.moveaxis(weights, -1, 0))
    return jax.lax.scan(add, start, places)[0]


def mean_scores(hidden: Float[Array, "B D"], vectors: Float[Array, "I D"]) -> Float[Array, "B I"]:
    """Scores of the whole catalogue, up to a constant of the row."""
    return hidden.astype(jnp.float32) @ vectors.T


def mean_candidate_scores(
    hidden: Float[Array, "B D"], vectors: Float[Array, "B C D"]
) -> Float[Array, "B C"]:
    """Scores of each text's own candidates, up to a constant of the row."""
    return jnp.einsum("bd,bcd->bc", hidden.astype(jnp.float32), vectors)


def index_scores(
    hidden: Float[Array, "B D"], head: Float[Array, "V D"], codes: Int[Array, "C"]
) -> Float[Array, "B C"]:
    """Logits of the candidates' codes: column c scores the candidate listed at place c."""
    return hidden.astype(jnp.float32) @ head[codes].astype(jnp.float32).T
