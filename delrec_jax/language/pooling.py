"""The mean of a text's states."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mean_pooled(states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """The mean over the tokens of the mask, in float32 whatever the dtype of the states; zeros where the mask has none."""
    kept = jnp.where(mask[..., None], states.astype(jnp.float32), 0.0)  # [B, T, D]
    lengths = jnp.maximum(mask.sum(axis=1), 1).astype(jnp.float32)  # [B]
    return kept.sum(axis=1) / lengths[:, None]
