"""Ranking losses over item scores: the label among candidates or among the entire catalogue (method.md, stage 2)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.title_ages import shown_items


def catalogue_cross_entropy(
    scores: Float[Array, "... I"], labels: Int[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Returns -log softmax(scores)[label] and its weight; a label of -1 has loss 0 and weight 0."""
    real = labels >= 0
    picked = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(scores, axis=-1) - picked
    return jnp.where(real, losses, 0.0), real.astype(jnp.float32)


def candidate_cross_entropy(
    scores: Float[Array, "B C"], targets: Float[Array, "B C"]
) -> Float[Array, "B"]:
    """Returns the cross-entropy of softmax(scores) to a target distribution over the candidates (one-hot or soft)."""
    return -(targets * jax.nn.log_softmax(scores, axis=-1)).sum(-1)


def open_items(
    known: Bool[np.ndarray, " I"], owners: Int[Array, "B T"] | None
) -> Bool[Array, "#B I"]:
    """Returns the items that compete: known, and not shown in the text, where it is known which those are.

    Args:
      known: the items that occur in the training part.
      owners: 1 + the item whose title each token is part of, 0 outside titles; None if unknown.
    """
    if owners is None:
        return jnp.asarray(known)[None]
    return jnp.asarray(known) & ~shown_items(owners, len(known))


def listed_cross_entropy(
    scores: Float[Array, "B I"],
    competing: Bool[Array, "#B I"],
    candidates: Int[Array, "B C"],
    targets: Float[Array, "B C"],
) -> Float[Array, "B"]:
    """Returns the cross-entropy of softmax(scores) over the competing items to a distribution that is 0 outside candidates.

    Candidates compete, whether or not `competing` says so.
    """
    rows = jnp.arange(scores.shape[0])[:, None]
    everything = jnp.broadcast_to(competing, scores.shape).at[rows, candidates].set(True)
    log_p = jax.nn.log_softmax(jnp.where(everything, scores, -jnp.inf), axis=-1)
    return -(targets * jnp.take_along_axis(log_p, candidates, axis=1)).sum(-1)


def divergence(before: Float[Array, "B I"], after: Float[Array, "B I"]) -> Float[Array, "B"]:
    """Returns KL(softmax(before) || softmax(after)) of each row, in nats."""
    log_before = jax.nn.log_softmax(before, axis=-1)
    log_after = jax.nn.log_softmax(after, axis=-1)
    return (jnp.exp(log_before) * (log_before - log_after)).sum(-1)
