"""Ranking losses over item scores: the label among candidates or among the entire catalogue (method.md, stage 2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


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


def divergence(before: Float[Array, "B I"], after: Float[Array, "B I"]) -> Float[Array, "B"]:
    """Returns KL(softmax(before) || softmax(after)) of each row, in nats."""
    log_before = jax.nn.log_softmax(before, axis=-1)
    log_after = jax.nn.log_softmax(after, axis=-1)
    return (jnp.exp(log_before) * (log_before - log_after)).sum(-1)
