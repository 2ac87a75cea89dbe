"""The verbalizer `sequence`: a title's length-normalized log-likelihood, teacher-forced (method.md, "the verbalizer").

For a title t1 .. tn the decoder reads T5's own form of an answer to a MASK:

    input    start  <extra_id_0>  t1  t2 .. t(n-1)
    target    (-)        t1       t2  t3 ..   tn        score = (1/n) sum_j log p(t_j | start, <extra_id_0>, t_<j)

so the first token is read at the same position that `first` and `mean` read. The sentinel itself is given, not scored
(it is the same for every title). Nothing after the title is scored either: `</s>` and the next sentinel are the same
token after every title, and the mean over n tokens already removes the effect of length.

A text's candidates share its encoding and are decoded in one batch. The vocabulary head applies to every token of every
title: [B, C, W, V] logits if computed at once. It is applied to a few positions at a time, also in the backward pass.
"""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from delrec_jax.language.verbalizer import Question, Titles, Verbalizer
from delrec_jax.precision import EXACT

# Logits in memory at once, 64 MiB of float32: enough to make matrix products efficient.
MAX_LOGITS = 2**24


class Likelihood(Verbalizer):
    """Scores by all tokens of a title, in order; only stated candidates, because each is decoded."""

    name = "sequence"
    max_logits = MAX_LOGITS
    asks_answers = True

    def key(self, title: Sequence[int]) -> Hashable:
        return tuple(title)

    def candidate_scores(
        self,
        question: Question,
        titles: Titles,
        candidates: Int[Array, "B C"],
        vectors: Float[Array, "I D"] | None,
    ) -> Float[Array, "B C"]:
        """Returns the mean log-probability of each candidate's title."""
        tokens, weights = titles.of(candidates)
        return sequence_scores(question.states(tokens), question.head(), tokens, weights)

    def answers(self, candidates: int, title_tokens: int) -> tuple[int, int]:
        """Returns one answer per candidate, as long as the longest title."""
        return candidates, title_tokens


SEQUENCE = Likelihood()


def token_log_probabilities(
    hidden: Float[Array, "B N W D"],
    head: Float[Array, "V D"],
    tokens: Int[Array, "B N W"],
    *,
    max_logits: int = MAX_LOGITS,
) -> Float[Array, "B N W"]:
    """Returns log softmax(hidden @ head.T)[token] in float32, with at most about `max_logits` logits in memory.

    Args:
      hidden: one state per token, ready for the head.
      head: output weights.
      tokens: the token to score at each state.
      max_logits: limit on the logits in memory at once; the minimum is one position of all texts (B * V).
    """

    def of_place(place: tuple[Float[Array, "B D"], Int[Array, "B"]]) -> Float[Array, "B"]:
        """Returns the log-probability of one token position of every text."""
        states, wanted = place
        logits = jnp.einsum(
            "bd,vd->bv", states, head, precision=EXACT, preferred_element_type=jnp.float32
        )
        picked = jnp.take_along_axis(logits, wanted[:, None], axis=-1)[:, 0]
        return picked - jax.nn.logsumexp(logits, axis=-1)

    # Positions become the leading axis and texts stay together, so that texts do not move between devices.
    texts, answers, length, width = hidden.shape
    places = jnp.moveaxis(hidden, 0, 2).reshape(answers * length, texts, width)  # [N * W, B, D]
    wanted = jnp.moveaxis(tokens, 0, 2).reshape(answers * length, texts)  # [N * W, B]
    at_once = max(1, max_logits // (texts * head.shape[0]))
    found = jax.lax.map(
        jax.checkpoint(of_place),
        (places, wanted),
        batch_size=min(at_once, answers * length),
    )  # [N * W, B]
    return jnp.moveaxis(found.reshape(answers, length, texts), 2, 0)  # [B, N, W]


def sequence_scores(
    hidden: Float[Array, "B C W D"],
    head: Float[Array, "V D"],
    titles: Int[Array, "B C W"],
    weights: Float[Array, "B C W"],
) -> Float[Array, "B C"]:
    """Returns the mean log-probability of each title's tokens.

    Args:
      hidden: the states that predict each token.
      head: output weights.
      titles: tokens, 0 where padded.
      weights: 1 / length, 0 where padded.
    """
    log_probabilities = token_log_probabilities(hidden, head, titles)
    return (log_probabilities * weights).sum(-1)
