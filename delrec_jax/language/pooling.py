"""How a text's states become one vector."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from delrec_jax.precision import EXACT


def mean_pooled(states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """The mean over the tokens of the mask, in float32 whatever the dtype of the states; zeros where the mask has none."""
    kept = jnp.where(mask[..., None], states.astype(jnp.float32), 0.0)  # [B, T, D]
    lengths = jnp.maximum(mask.sum(axis=1), 1).astype(jnp.float32)  # [B]
    return kept.sum(axis=1) / lengths[:, None]


def first_pooled(states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """The state of the first token, `[CLS]` of a BERT, in float32; zeros where the mask has none."""
    return jnp.where(mask[:, :1], states[:, 0].astype(jnp.float32), 0.0)


def weighted_pooled(
    states: Float[Array, "B T D"], weights: Float[Array, "B T"]
) -> Float[Array, "B D"]:
    """The weighted mean in float32; states of weight 0 are not read; zeros where all weights are 0."""
    kept = jnp.where(weights[..., None] > 0, states.astype(jnp.float32), 0.0)
    total = weights.sum(axis=1, keepdims=True)
    summed = jnp.einsum("bt,btd->bd", weights, kept, precision=EXACT)
    return summed / jnp.where(total > 0, total, 1.0)


POOLS = {"mean": mean_pooled, "first": first_pooled}
"""The ways in which sentence encoders are trained to be read: `[B, T, D]` and the mask `[B, T]` to `[B, D]`."""
