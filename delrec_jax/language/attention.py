"""T5 attention: no 1/sqrt(d) scaling, relative-position buckets as a bias, padding as a mask.

Source: Raffel et al. 2020, section 2.1, and the Hugging Face T5 module, whose names the
parameters follow so that pretrained weights map onto them one to one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.adalora import AdapterDropout, Projection
from delrec_jax.language.logical_axes import constrain
from delrec_jax.language.t5_config import T5Config

_HIDDEN = -1e9  # added to the logits of padding: its share is 0 in float32, and no row becomes NaN


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
        self.q = Projection(cfg, cfg.d_model, inner, (cfg.d_model * cfg.d_kv) ** -0.5)
        self.k = Projection(cfg, cfg.d_model, inner, cfg.d_model**-0.5)
        self.v = Projection(cfg, cfg.d_model, inner, cfg.d_model**-0.5)
        self.o = Projection(cfg, inner, cfg.d_model, inner**-0.5)
        self.adapter_dropout = AdapterDropout(cfg)

    def __call__(
        self,
        queries: Float[Array, "B Tq D"],
        keys: Float[Array, "B Tk D"],
        *,
        bias: Float[Array, "1 H Tq Tk"] | None,
        mask: Bool[Array, "#B 1 #Tq Tk"],
        deterministic: bool,
    ) -> Float[Array, "B Tq D"]:
        """Attends from `queries` to `keys` where `mask` is True; without a bias it is cross-attention."""
        dropped = self.adapter_dropout(queries, deterministic)
        q = self._heads(self.q(queries, dropped))
        if bias is None:
            out = self._attend_to_text(q, keys, mask, deterministic)
        else:
            k, v = self._heads(self.k(keys, dropped)), self._heads(self.v(keys, dropped))
            # The decoder's few rows gain nothing from cuDNN, and it does not take their odd lengths.
            cudnn = self.config.attention == "cudnn" and mask.shape[-2] == 1
            attend = attend_by_cudnn if cudnn else attend_by_xla
            out = attend(q, k, v, bias, mask)
        out = out.reshape(*queries.shape[:-1], -1)
        return self.o(out, self.adapter_dropout(out, deterministic))

    def _heads(self, x: Float[Array, "B T F"]) -> Float[Array, "B T H K"]:
        heads = x.reshape(*x.shape[:-1], self.config.num_heads, self.config.d_kv)
        return constrain(heads, "batch", None, "heads", None) if heads.ndim == 4 else heads

    def _attend_to_text(
        self, q: Float[Array, "B Tq H K"], text: Float[Array, "B T D"], mask, deterministic: bool
    ) -> Float[Array, "B Tq H K"]:
        """Cross-attention, of a short answer to a long text with the projections moved to the short side.

        q . (x W_k) = (q W_k^T) . x and sum_t p_t (x_t W_v) = (sum_t p_t x_t) W_v: neither keys nor values of the text
        are made, which for one answer saves an eighth of a whole T5's work and the memory of both. It pays while the
        answer has fewer tokens than a head has channels.
        """
        dropped = self.adapter_dropout(text, deterministic)
        if q.shape[1] > self.config.d_kv:
            k, v = self._heads(self.k(text, dropped)), self._heads(self.v(text, dropped))
            logits = jnp.einsum("bqhk,bthk->bhqt", q, k, preferred_element_type=jnp.float32)
            weights = masked_softmax(logits, mask).astype(text.dtype)
            return jnp.einsum("bhqt,bthk->bqhk", weights, v)
        weights = masked_softmax(self._logits_of_text(q, text, dropped), mask).astype(text.dtype)
        return self._values_of_text(weights, text, dropped)

    def _logits_of_text(self, q: Float[Array, "B Tq H K"], text, dropped) -> Array:
        """q . (x W_k), and the same of the adapter, for every token x of the text: [B, H, Tq, T]."""

        def dot(rows: Float[Array, "B Tq H D"], tokens: Array) -> Array:
            return jnp.einsum("bqhd,btd->bhqt", rows, tokens, preferred_element_type=jnp.float32)

        kernel = self._heads(self.k.kernel.astype(q.dtype))
        logits = dot(jnp.einsum("bqhk,dhk->bqhd", q, kernel), text)
        if (triplet := self.k.adapter(q.dtype)) is None:
            return logits
        a, e, b = triplet
        return logits + dot((jnp.einsum("bqhk,rhk->bqhr", q, self._heads(b)) * e) @ a.T, dropped)

    def _values_of_text(self, weights: Float[Array, "B H Tq T"], text, dropped) -> Array:
        """sum_t p_t (x_t W_v), and the same of the adapter: [B, Tq, H, K]."""

        def pool(tokens: Array) -> Float[Array, "B Tq H D"]:
            return jnp.einsum("bhqt,btd->bqhd", weights, tokens)

        kernel = self._heads(self.v.kernel.astype(text.dtype))
        values = jnp.einsum("bqhd,dhk->bqhk", pool(text), kernel)
        if (triplet := self.v.adapter(text.dtype)) is None:
            return values
        a, e, b = triplet
        return values + jnp.einsum("bqhr,rhk->bqhk", (pool(dropped) @ a) * e, self._heads(b))


def attend_by_xla(
    q: Float[Array, "B Tq H K"],
    k: Float[Array, "B Tk H K"],
    v: Float[Array, "B Tk H K"],
    bias: Float[Array, "1 H Tq Tk"],
    mask: Bool[Array, "#B 1 #Tq Tk"],
) -> Float[Array, "B Tq H K"]:
    """Plain attention, softmax in float32.

    The same numbers as `jax.nn.dot_product_attention(implementation="xla")`; on CPU a whole step is 5 to 8 % faster: heads are
    brought to the front once, and padding is added instead of selected (benchmarks/lm_step.py).
    """
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    logits = jnp.matmul(q, jnp.swapaxes(k, 2, 3), preferred_element_type=jnp.float32)
    weights = masked_softmax(logits, mask, bias)
    return jnp.swapaxes(weights.astype(v.dtype) @ v, 1, 2)


def attend_by_cudnn(q, k, v, bias, mask) -> Float[Array, "B Tq H K"]:
    """The same by cuDNN's fused kernel: 16 bits, NVIDIA GPUs only; shapes as in `attend_by_xla`."""
    return jax.nn.dot_product_attention(
        q, k, v, bias=bias.astype(q.dtype), mask=mask, scale=1.0, implementation="cudnn"
    )


def masked_softmax(
    logits: Float[Array, "B H Tq Tk"],
    mask: Bool[Array, "#B 1 #Tq Tk"],
    bias: Float[Array, "1 H Tq Tk"] | float = 0.0,
) -> Float[Array, "B H Tq Tk"]:
    """Softmax over the keys where `mask` is True, in float32; uniform where it is True nowhere."""
    hidden = jnp.where(mask, 0.0, _HIDDEN)
    return jax.nn.softmax(logits + bias + hidden, axis=-1)
