"""Scores of different recommenders on one scale, so that they can be added."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def standardised(
    scores: Float[Array, "B I"], among: Bool[Array, "B I"] | None = None
) -> Float[Array, "B I"]:
    """Each row's scores minus their mean, divided by their standard deviation.

    An item that a system cannot score (-inf) gets the row's lowest score. A row of equal scores becomes zeros: a system that
    has nothing to say adds nothing.

    Args:
      scores: higher is better.
      among: the items whose mean and deviation are taken; None = all.
    """
    among = jnp.ones(scores.shape, bool) if among is None else among
    scored = ~jnp.isneginf(scores)  # a score that is not a number stays one, and is refused
    lowest = jnp.where(scored, scores, jnp.inf).min(axis=1, keepdims=True)
    filled = jnp.where(scored, scores, jnp.where(jnp.isposinf(lowest), 0.0, lowest))
    count = jnp.maximum(among.sum(axis=1, keepdims=True), 1)
    mean = jnp.where(among, filled, 0.0).sum(axis=1, keepdims=True) / count
    centred = filled - mean
    variance = jnp.where(among, centred**2, 0.0).sum(axis=1, keepdims=True) / count
    # Below this, differences are rounding.
    equal = variance <= 1e-12 * jnp.maximum(mean**2, 1e-12)
    return jnp.where(equal, 0.0, centred / jnp.sqrt(jnp.where(equal, 1.0, variance)))


def unseen_items(items: Int[Array, "B S"], num_items: int) -> Bool[Array, "B I"]:
    """Which items of the catalogue do not occur in each row of `items`, which are padded with -1 anywhere."""
    # A negative index would wrap around to the last items, so padding is moved out of bounds.
    columns = jnp.where(items < 0, num_items, items)
    rows = jnp.arange(len(items))[:, None]
    return jnp.ones((len(items), num_items), bool).at[rows, columns].set(False, mode="drop")
