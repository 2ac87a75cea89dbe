"""T5 attention: no 1/sqrt(d) scaling, relative-position buckets as a bias, padding as a mask.

Source: Raffel et al. 2020, section 2.1, and the Hugging Face T5 module. Parameters are named as in the latter, so
that pretrained weights map to them one to one.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.activations import softmax
from delrec_jax.language.adalora import AdapterDropout, Projection
from delrec_jax.language.fused_attention import attend_by_cudnn, fits
from delrec_jax.language.logical_axes import constrain
from delrec_jax.language.t5_config import T5Config

_HIDDEN = -1e9  # added to the logits of padding: its weight is 0 in float32, and no row becomes NaN


def relative_position_bucket(
    distance: Int[Array, "..."], *, bidirectional: bool, num_buckets: int, max_distance: int
) -> Int[Array, "..."]:
    """Maps key-minus-query distances to T5's buckets.

    Half of the buckets hold exact small distances; the other half grow logarithmically up to
    `max_distance`, beyond which all distances share the last bucket. Bidirectional stacks spend half
    of the buckets on positive distances; causal stacks map every future position to bucket 0.

    Args:
      distance: key position minus query position, in tokens.
      bidirectional: True in the encoder.
      num_buckets: total number of buckets.
      max_distance: where the logarithmic part saturates, in tokens.

    Returns:
      Bucket indices, in the shape of `distance`.
    """
    offset = jnp.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = jnp.where(distance > 0, num_buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = num_buckets // 2
    # The maximum avoids log(0); those positions take the exact branch.
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
        )  # [T, T]
        return jnp.moveaxis(table[buckets], -1, 0)[None]  # [T, T, H] -> [1, H, T, T]


class Attention(nn.Module):
    """Multi-head attention of T5, for self- and cross-attention."""

    config: T5Config

    def setup(self) -> None:
        cfg = self.config
        inner = cfg.num_heads * cfg.d_kv
        # Mesh TensorFlow's initialization: unscaled logits need the 1/sqrt(d_kv) in the query kernel.
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
        """Attends from `queries` to `keys` where `mask` is True; without a bias, this is cross-attention."""
        dropped = self.adapter_dropout(queries, deterministic)
        q = self._heads(self.q(queries, dropped))  # [B, Tq, H, K]
        if bias is None:
            out = self._attend_to_text(q, keys, mask, deterministic)
        else:
            k, v = self._heads(self.k(keys, dropped)), self._heads(self.v(keys, dropped))
            # A causal mask is no padding, and cuDNN does not speed up the decoder's few rows.
            fused = mask.shape[-2] == 1 and self._fused(q, k)
            out = (attend_by_cudnn if fused else attend_by_xla)(q, k, v, bias, mask)
        out = out.reshape(*queries.shape[:-1], -1)  # [B, Tq, H * K]
        return self.o(out, self.adapter_dropout(out, deterministic))

    def _fused(self, q: Float[Array, "B Tq H K"], k: Float[Array, "B Tk H K"]) -> bool:
        return self.config.attention == "cudnn" and fits(q.shape[1], k.shape[1])

    def _heads(self, x: Float[Array, "... F"]) -> Float[Array, "... H K"]:
        """Splits the last axis into heads, of activations [B, T, F] or of a kernel [D, F]."""
        heads = x.reshape(*x.shape[:-1], self.config.num_heads, self.config.d_kv)
        return constrain(heads, "batch", None, "heads", None) if heads.ndim == 4 else heads

    def _attend_to_text(
        self,
        q: Float[Array, "B Tq H K"],
        text: Float[Array, "B T D"],
        mask: Bool[Array, "#B 1 #Tq T"],
        deterministic: bool,
    ) -> Float[Array, "B Tq H K"]:
        """Cross-attention; from a short answer to a long text, the projections are moved to the short side.

        q . (x W_k) = (q W_k^T) . x and sum_t p_t (x_t W_v) = (sum_t p_t x_t) W_v: neither keys nor values of the text
        are computed, which for one answer saves an eighth of the work of an entire T5, and the memory of both. It pays
        off while the answer has fewer tokens than a head has channels.
        """
        dropped = self.adapter_dropout(text, deterministic)
        if q.shape[1] > self.config.d_kv:
            k, v = self._heads(self.k(text, dropped)), self._heads(self.v(text, dropped))
            if self._fused(q, k):
                return attend_by_cudnn(q, k, v, None, mask, padded_queries=False)
            logits = jnp.einsum("bqhk,bthk->bhqt", q, k, preferred_element_type=jnp.float32)
            weights = masked_softmax(logits, mask).astype(text.dtype)  # [B, H, Tq, T]
            return jnp.einsum("bhqt,bthk->bqhk", weights, v)  # [B, Tq, H, K]
        weights = masked_softmax(self._logits_of_text(q, text, dropped), mask).astype(text.dtype)
        return self._values_of_text(weights, text, dropped)

    def _logits_of_text(
        self,
        q: Float[Array, "B Tq H K"],
        text: Float[Array, "B T D"],
        dropped: Float[Array, "B T D"],
    ) -> Float[Array, "B H Tq T"]:
        """Returns q . (x W_k) plus the adapter's part of it, for every token x of the text."""

        def dot(
            rows: Float[Array, "B Tq H D"], tokens: Float[Array, "B T D"]
        ) -> Float[Array, "B H Tq T"]:
            return jnp.einsum("bqhd,btd->bhqt", rows, tokens, preferred_element_type=jnp.float32)

        kernel = self._heads(self.k.weights(q.dtype))  # [D, H, K]
        logits = dot(jnp.einsum("bqhk,dhk->bqhd", q, kernel), text)  # [B, H, Tq, T]
        if (triplet := self.k.adapter(q.dtype)) is None:
            return logits
        a, e, b = triplet
        rows = (jnp.einsum("bqhk,rhk->bqhr", q, self._heads(b)) * e) @ a.T  # [B, Tq, H, D]
        return logits + dot(rows, dropped)

    def _values_of_text(
        self,
        weights: Float[Array, "B H Tq T"],
        text: Float[Array, "B T D"],
        dropped: Float[Array, "B T D"],
    ) -> Float[Array, "B Tq H K"]:
        """Returns sum_t p_t (x_t W_v) plus the adapter's part of it."""

        def pool(tokens: Float[Array, "B T D"]) -> Float[Array, "B Tq H D"]:
            return jnp.einsum("bhqt,btd->bqhd", weights, tokens)

        kernel = self._heads(self.v.weights(text.dtype))  # [D, H, K]
        values = jnp.einsum("bqhd,dhk->bqhk", pool(text), kernel)  # [B, Tq, H, K]
        if (triplet := self.v.adapter(text.dtype)) is None:
            return values
        a, e, b = triplet
        ranks = (pool(dropped) @ a) * e  # [B, Tq, H, R]
        return values + jnp.einsum("bqhr,rhk->bqhk", ranks, self._heads(b))


def attend_by_xla(
    q: Float[Array, "B Tq H K"],
    k: Float[Array, "B Tk H K"],
    v: Float[Array, "B Tk H K"],
    bias: Float[Array, "1 H Tq Tk"] | None,
    mask: Bool[Array, "#B 1 #Tq Tk"],
) -> Float[Array, "B Tq H K"]:
    """Plain attention, with the softmax in float32.

    Gives the same numbers as `jax.nn.dot_product_attention(implementation="xla")`, but a full training step on CPU is 5 to
    8 % faster: heads are moved to the front once, and the mask is added instead of selected (benchmarks/lm_step.py).
    """
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))  # [B, H, Tq, K], twice [B, H, Tk, K]
    logits = jnp.matmul(q, jnp.swapaxes(k, 2, 3), preferred_element_type=jnp.float32)
    weights = masked_softmax(logits, mask, 0.0 if bias is None else bias)  # [B, H, Tq, Tk]
    return jnp.swapaxes(weights.astype(v.dtype) @ v, 1, 2)  # [B, Tq, H, K]


def masked_softmax(
    logits: Float[Array, "B H Tq Tk"],
    mask: Bool[Array, "#B 1 #Tq Tk"],
    bias: Float[Array, "1 H Tq Tk"] | float = 0.0,
) -> Float[Array, "B H Tq Tk"]:
    """Softmax over the keys where `mask` is True, in float32; uniform if it is True nowhere."""
    hidden = jnp.where(mask, 0.0, _HIDDEN)
    return softmax(logits + bias + hidden)
