"""T5 attention: no 1/sqrt(d) scaling, relative-position buckets as a bias, padding as a mask.

Source: Raffel et al. 2020, section 2.1, and the Hugging Face T5 module, whose names the
parameters follow so that pretrained weights map onto them one to one.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.adalora import Projection
from delrec_jax.language.t5_config import T5Config


def relative_position_bucket(
    distance: Int[Array, "..."], *, bidirectional: bool, num_buckets: int, max_distance: int
) -> Int[Array, "..."]:
    """Maps key-minus-query distances to T5's buckets.

    Half of the buckets are exact small distances, the other half grows logarithmically up to
    `max_distance`, beyond which all distances share the last bucket. Bidirectional stacks spend half
    of the buckets on positive distances; causal stacks map every future position to bucket 0.

    Args:
      distance: key position minus query position, in tokens.
      bidirectional: True in the encoder.
      num_buckets: number of buckets in all.
      max_distance: where the logarithmic part saturates, in tokens.

    Returns:
      Bucket indices, of the shape of `distance`.
    """
    offset = jnp.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = jnp.where(distance > 0, num_buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = num_buckets // 2
    # The maximum keeps log(0) out; those positions take the exact branch.
    ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact)
    growth = ratio / jnp.log(max_distance / exact) * (num_buckets - exact)
    far = jnp.minimum(exact + growth.astype(jnp.int32), num_buckets - 1)
    return offset + jnp.where(distance < exact, distance, far)


class RelativeBias(nn.Module):
    """The learned bias of a stack, computed once and shared by all its layers."""

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(self, length: int) -> Float[Array, "1 H T T"]:
        """Returns the bias that is added to the attention logits of `length` tokens."""
        table = self.param(
            "embedding",
            nn.initializers.normal(self.config.d_model**-0.5),
            (self.config.relative_attention_num_buckets, self.config.num_heads),
            self.config.stored_dtype,
        )
        positions = jnp.arange(length)
        buckets = relative_position_bucket(
            positions[None, :] - positions[:, None],
            bidirectional=self.bidirectional,
            num_buckets=self.config.relative_attention_num_buckets,
            max_distance=self.config.relative_attention_max_distance,
        )
        return jnp.moveaxis(table[buckets], -1, 0)[None]  # [T, T, H] -> [1, H, T, T]


class Attention(nn.Module):
    """Multi-head attention of T5, for self- and cross-attention."""

    config: T5Config

    def setup(self):
        cfg = self.config
        inner = cfg.num_heads * cfg.d_kv
        # Mesh TensorFlow's initialisation: unscaled logits need the 1/sqrt(d_kv) in the query kernel.
        self.q = Projection(cfg, inner, (cfg.d_model * cfg.d_kv) ** -0.5)
        self.k = Projection(cfg, inner, cfg.d_model**-0.5)
        self.v = Projection(cfg, inner, cfg.d_model**-0.5)
        self.o = Projection(cfg, cfg.d_model, inner**-0.5)

    def __call__(
        self,
        queries: Float[Array, "B Tq D"],
        keys: Float[Array, "B Tk D"],
        *,
        bias: Float[Array, "1 H Tq Tk"] | None,
        mask: Bool[Array, "#B 1 #Tq Tk"],
        deterministic: bool,
    ) -> Float[Array, "B Tq D"]:
        """Attends from `queries` to `keys` where `mask` is True."""
        cfg = self.config

        def heads(x: Array) -> Array:
            return x.reshape(*x.shape[:-1], cfg.num_heads, cfg.d_kv)

        out = jax.nn.dot_product_attention(
            heads(self.q(queries, deterministic)),
            heads(self.k(keys, deterministic)),
            heads(self.v(keys, deterministic)),
            bias=None if bias is None else bias.astype(cfg.compute_dtype),
            mask=mask,
            scale=1.0,
            implementation=self._kernel(bias, mask),
        )
        return self.o(out.reshape(*queries.shape[:-1], -1), deterministic)

    def _kernel(self, bias: Array | None, mask: Array) -> Literal["xla", "cudnn"]:
        """cuDNN for the encoder alone: the decoder's few rows gain nothing, and its odd lengths are not supported."""
        encoder = bias is not None and mask.shape[-2] == 1
        return "cudnn" if encoder and self.config.attention == "cudnn" else "xla"
