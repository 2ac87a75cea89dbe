"""Dropout that draws half as many random bits as Flax's: on CPU, drawing them took a fifth of a train step."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def dropped(x: Float[Array, "*B D"], rate: float, key: jax.Array) -> Float[Array, "*B D"]:
    """Zeroes elements at this rate and scales up the rest.

    Each element takes 16 random bits, so the rate is exact to 1 / 65536.

    Args:
      x: the input.
      rate: share of the elements to drop, in [0, 1).
      key: random key.
    """
    *rows, width = x.shape
    words = jax.random.bits(key, (*rows, (width + 1) // 2), jnp.uint32)
    # Split by hand: on CPU, `random.bits` takes twice as long for uint16 as for uint32.
    bits = jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., :width]  # [*B, D]
    return jnp.where(bits >= round(rate * 2**16), x / (1 - rate), 0)


class Dropout(nn.Module):
    """`dropped` as a Flax module with the random stream "dropout".

    Attributes:
      rate: share of the elements to drop, in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"], *, deterministic: bool) -> Float[Array, "*B D"]:
        """Applies dropout unless `deterministic`."""
        if deterministic or self.rate == 0:
            return x
        return dropped(x, self.rate, self.make_rng("dropout"))
