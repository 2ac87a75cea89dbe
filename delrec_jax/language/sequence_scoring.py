"""The verbalizer `sequence`: a title's length-normalised log-likelihood, teacher-forced (method.md, "the verbalizer").

Format, decided here: for a title t1 .. tn the decoder reads T5's own answer to a MASK,

    input    start  <extra_id_0>  t1  t2 .. t(n-1)
    target    (-)        t1       t2  t3 ..   tn        score = (1/n) sum_j log p(t_j | start, <extra_id_0>, t_<j)

so the first token is read at the very position that `first` and `mean` read. The sentinel itself is given, not scored
(it is the same for every title), and nothing after the title is scored either: neither `</s>` nor the next sentinel,
since both are the same token after every title and the mean over n tokens already takes the length out.

A text's candidates share its encoding and are decoded in one batch. The vocabulary head stands at every token of every
title, [B, C, W, V] logits if taken at once; it is applied to a few places at a time, in the backward pass too.
"""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from delrec_jax.language.verbalizer import Question, Titles, Verbalizer

# Logits alive at once, 64 MiB of float32: large enough to keep a matrix product busy.
MAX_LOGITS = 2**24


class Likelihood(Verbalizer):
    """All tokens of a title in their order: stated candidates alone, each of which is decoded."""

    name = "sequence"
    max_logits = MAX_LOGITS

    def key(self, title: Sequence[int]) -> Hashable:
        return tuple(title)

    def candidate_scores(
        self,
        question: Question,
        titles: Titles,
        candidates: Int[Array, "B C"],
        vectors: Float[Array, "I D"] | None,
    ) -> Float[Array, "B C"]:
        """Mean log-probability of each candidate's title."""
        tokens, weights = titles.of(candidates)
        return sequence_scores(question.states(tokens), question.head(), tokens, weights)

    def answers(self, candidates: int, title_tokens: int) -> tuple[int, int]:
        """Every candidate, its whole title."""
        return candidates, title_tokens


SEQUENCE = Likelihood()


def token_log_probabilities(
    hidden: Float[Array, "B N W D"],
    head: Float[Array, "V D"],
    tokens: Int[Array, "B N W"],
    *,
    max_logits: int = MAX_LOGITS,
) -> Float[Array, "B N W"]:
    """log softmax(hidden @ head.T)[token] in float32, with no more than about `max_logits` logits in memory.

    Args:
      hidden: one state a token, ready for the head.
      head: output weights.
      tokens: the token asked for at each state.
      max_logits: bound on the logits alive at once; one place of all texts (B * V) is the least there can be.
    """

    def of_place(place: tuple[Array, Array]) -> Array:
        states, wanted = place  # [B, D], [B]
        logits = jnp.einsum("bd,vd->bv", states, head, preferred_element_type=jnp.float32)
        picked = jnp.take_along_axis(logits, wanted[:, None], axis=-1)[:, 0]
        return picked - jax.nn.logsumexp(logits, axis=-1)

    # Places lead and texts stay together, so that texts split over devices stay where they are.
    texts, answers, length, width = hidden.shape
    places = jnp.moveaxis(hidden, 0, 2).reshape(answers * length, texts, width)
    wanted = jnp.moveaxis(tokens, 0, 2).reshape(answers * length, texts)
    at_once = max(1, max_logits // (texts * head.shape[0]))
    found = jax.lax.map(
        jax.checkpoint(of_place),
        (places, wanted),
        batch_size=min(at_once, answers * length),
    )
    return jnp.moveaxis(found.reshape(answers, length, texts), 2, 0)


def sequence_scores(
    hidden: Float[Array, "B C W D"],
    head: Float[Array, "V D"],
    titles: Int[Array, "B C W"],
    weights: Float[Array, "B C W"],
) -> Float[Array, "B C"]:
    """Mean log-probability of each title's tokens.

    Args:
      hidden: the states that predict each token.
      head: output weights.
      titles: tokens, 0 where padded.
      weights: 1 / length, 0 where padded.
    """
    log_probabilities = token_log_probabilities(hidden, head, titles)
    return (log_probabilities * weights).sum(-1)
