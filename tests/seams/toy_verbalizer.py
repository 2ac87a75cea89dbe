"""Verbalizers of one's own, as a fork would bring them: `lm.verbalizer=tests/seams/toy_verbalizer.py:LAST`."""

import jax.numpy as jnp
import numpy as np

from delrec_jax.language.mean_scoring import Averaging
from delrec_jax.language.verbalizer import Titles, Verbalizer


class Last(Averaging):
    """A title is scored by its last token, times a number of its own that stage 2 trains and stage 1 does not."""

    name = "last"

    def readout(self, model, items):
        return {"scale": np.ones((), np.float32)}

    def catalogue_scores(self, question, vectors):
        return question.readout["scale"] * super().catalogue_scores(question, vectors)

    def words(self, titles):
        places = (titles.tokens > 0).sum(1, keepdims=True) - 1
        tokens = np.take_along_axis(titles.tokens, places, 1)
        return Titles(tokens, np.ones(tokens.shape, np.float32))

    def key(self, title):
        return title[-1]


class Best(Verbalizer):
    """A title is scored by its best token: the candidates alone, from one state."""

    name = "best"

    def key(self, title):
        return frozenset(title)

    def candidate_scores(self, question, titles, candidates, vectors):
        tokens, weights = titles.of(candidates)
        logits = jnp.einsum("bd,bcwd->bcw", question.state(), question.head()[tokens])
        return jnp.where(weights > 0, logits, -jnp.inf).max(-1)


LAST, BEST = Last(), Best()
