"""The verbalizers `mean` and `first`: items scored by a mean of output vectors (method.md, "the verbalizer").

`mean` scores an item by the mean log-probability of its title's tokens at the one position after MASK. The log-partition of
that position is the same for every item, so up to a constant per row

    score_i = mean_t (h . w_t) = h . (mean_t w_t):

one product of the hidden state with a matrix of item vectors ranks the entire catalogue, without a product with the
vocabulary head. The constant changes neither ranks nor a softmax over items nor its gradient.

`first` is the same with only the first token of the title; many titles share it, so it serves for comparison.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Sequence
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from delrec_jax.language.family import LanguageModel
from delrec_jax.language.verbalizer import Question, Titles, Verbalizer, asked
from delrec_jax.precision import EXACT


class Averaging(Verbalizer):
    """Scores by a weighted mean of the output vectors of some of a title's tokens; a subclass says which."""

    ranks_catalogue = True
    asks_answers = True

    @abstractmethod
    def words(self, titles: Titles) -> Titles:
        """The tokens that count, and their weights."""

    def candidate_scores(
        self,
        question: Question,
        titles: Titles,
        candidates: Int[Array, "B C"],
        vectors: Float[Array, "I D"] | None,
    ) -> Float[Array, "B C"]:
        """Returns scores from the candidates' rows of `vectors`, or from vectors made for the candidates only."""
        hidden = question.state()
        if vectors is not None:
            return mean_candidate_scores(hidden, vectors[candidates])
        own = averaged_rows(question.head(), *self.words(titles).of(candidates))
        return mean_candidate_scores(hidden, own)

    def item_vectors(
        self, model: LanguageModel, params: Any, titles: Titles
    ) -> Float[Array, "I D"]:
        """Returns one output vector per title."""
        head = asked(model, self.name).head(params)
        return averaged_rows(head, *self.words(titles))

    def catalogue_scores(
        self, question: Question, vectors: Float[Array, "I D"]
    ) -> Float[Array, "B I"]:
        """Returns the scores of all items, from one product."""
        return mean_scores(question.state(), vectors)


class Mean(Averaging):
    """Scores by all tokens of a title, in any order."""

    name = "mean"
    shows_examples = True

    def words(self, titles: Titles) -> Titles:
        return titles

    def key(self, title: Sequence[int]) -> Hashable:
        """Returns the counts of the tokens in lowest terms: [a a b b] and [b a] have the same mean."""
        counts = Counter(title)
        common = gcd(*counts.values())
        return tuple(sorted((token, count // common) for token, count in counts.items()))


class First(Averaging):
    """Scores by the first token of a title."""

    name = "first"

    def words(self, titles: Titles) -> Titles:
        return Titles(titles.tokens[:, :1], np.ones((len(titles.tokens), 1), np.float32))

    def key(self, title: Sequence[int]) -> Hashable:
        return title[0]


MEAN, FIRST = Mean(), First()


def averaged_rows(
    head: Float[Array, "V D"],
    tokens: Int[Array | np.ndarray, "... W"],
    weights: Float[Array | np.ndarray, "... W"],
) -> Float[Array, "... D"]:
    """Returns the mean output vector of each title's tokens, summed over one token position of all titles at a time.

    All positions at once would be [I, W, D]: 1.6 GB for 100,000 titles of 8 tokens and a width of 512.
    """

    def add(total: Array, place: tuple[Array, Array]) -> tuple[Array, None]:
        ids, shares = place  # [...], [...]
        return total + shares[..., None] * head[ids].astype(jnp.float32), None

    start = jnp.zeros((*tokens.shape[:-1], head.shape[1]), jnp.float32)
    places = (jnp.moveaxis(tokens, -1, 0), jnp.moveaxis(weights, -1, 0))  # twice [W, ...]
    return jax.lax.scan(add, start, places)[0]


def mean_scores(hidden: Float[Array, "B D"], vectors: Float[Array, "I D"]) -> Float[Array, "B I"]:
    """Returns the scores of the entire catalogue, up to a constant per row."""
    return jnp.matmul(hidden.astype(jnp.float32), vectors.T, precision=EXACT)


def mean_candidate_scores(
    hidden: Float[Array, "B D"], vectors: Float[Array, "B C D"]
) -> Float[Array, "B C"]:
    """Returns the scores of each text's own candidates, up to a constant per row."""
    return jnp.einsum("bd,bcd->bc", hidden.astype(jnp.float32), vectors, precision=EXACT)
