"""BERT encoders (BERT, MiniLM, E5, BGE) in Flax Linen: pure functions of a parameter tree.

Unlike T5: positions and segments have embeddings, every projection and norm has a bias, norms follow the residuals, logits
are scaled by 1 / sqrt(K), and GELU is exact. A soft prompt takes the place of word embeddings, so positions, segments and the
first norm apply to its slots too, as to `inputs_embeds` of `transformers`.

Source: Devlin et al. 2019. Parity with PyTorch: tests/parity.
"""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.activations import gelu
from delrec_jax.language.adalora import AdapterDropout, Projection
from delrec_jax.language.attention import attend_by_xla
from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.compute_settings import matmul_precision, recomputed
from delrec_jax.language.fused_attention import attend_by_cudnn, fits
from delrec_jax.language.logical_axes import constrain

_STDDEV = 0.02  # of all initial weights


class LayerNorm(nn.Module):
    """Zero mean and unit variance, computed in float32, then a learned weight and bias."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalizes each state."""
        shape, dtype = (x.shape[-1],), self.config.stored_dtype
        weight = self.param("weight", nn.initializers.ones, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, dtype)
        x32 = x.astype(jnp.float32)
        centered = x32 - x32.mean(-1, keepdims=True)
        variance = jnp.square(centered).mean(-1, keepdims=True)
        y = centered * jax.lax.rsqrt(variance + self.config.layer_norm_eps)
        return (weight * y + bias).astype(self.config.compute_dtype)


class SelfAttention(nn.Module):
    """Multi-head attention of each token to all tokens of its text."""

    config: BertConfig

    def setup(self) -> None:
        cfg = self.config
        for name in "qkvo":
            projection = Projection(cfg, cfg.hidden_size, cfg.hidden_size, _STDDEV, use_bias=True)
            setattr(self, name, projection)
        self.adapter_dropout = AdapterDropout(cfg)

    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B 1 1 T"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Returns what is attended to where `mask` is True, without the residual."""
        dropped = self.adapter_dropout(x, deterministic)
        scale = self.config.head_width**-0.5
        q = self._heads(self.q(x, dropped) * scale)
        k, v = self._heads(self.k(x, dropped)), self._heads(self.v(x, dropped))
        fused = self.config.attention == "cudnn" and fits(x.shape[1], x.shape[1])
        out = (attend_by_cudnn if fused else attend_by_xla)(q, k, v, None, mask).reshape(x.shape)
        attended: Array = self.o(out, self.adapter_dropout(out, deterministic))
        return attended

    def _heads(self, x: Float[Array, "B T D"]) -> Float[Array, "B T H K"]:
        heads = x.reshape(*x.shape[:-1], self.config.num_attention_heads, self.config.head_width)
        return constrain(heads, "batch", None, "heads", None)


class FeedForward(nn.Module):
    """Two projections with an exact GELU between them."""

    config: BertConfig

    def setup(self) -> None:
        cfg = self.config
        width, inner = cfg.hidden_size, cfg.intermediate_size
        self.wi = Projection(cfg, width, inner, _STDDEV, use_bias=True)
        self.wo = Projection(cfg, inner, width, _STDDEV, use_bias=True)
        self.adapter_dropout = AdapterDropout(cfg)

    def __call__(self, x: Float[Array, "B T D"], deterministic: bool) -> Float[Array, "B T D"]:
        """Returns the transformed x, without the residual."""
        hidden = gelu(self.wi(x, self.adapter_dropout(x, deterministic)), False)
        hidden = constrain(hidden, "batch", None, "mlp")
        return self.wo(hidden, self.adapter_dropout(hidden, deterministic))


class Block(nn.Module):
    """Self-attention and feed-forward, each followed by its residual and norm."""

    config: BertConfig

    def setup(self) -> None:
        cfg = self.config
        self.SelfAttention, self.attention_norm = SelfAttention(cfg), LayerNorm(cfg)
        self.FeedForward, self.ff_norm = FeedForward(cfg), LayerNorm(cfg)
        self.dropout = nn.Dropout(cfg.dropout_rate)

    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B 1 1 T"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Transforms the states of a text."""
        attended = self.dropout(self.SelfAttention(x, mask, deterministic), deterministic)
        x = self.attention_norm(x + attended)
        x = self.ff_norm(x + self.dropout(self.FeedForward(x, deterministic), deterministic))
        return constrain(x, "batch", None, None)


class Encoder(nn.Module):
    """All blocks."""

    config: BertConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B 1 1 T"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Returns the states after the last block."""
        block = recomputed(Block, self.config.remat, scanned=False)
        for index in range(self.config.num_hidden_layers):
            x = block(self.config, name=f"block_{index}")(x, mask, deterministic)
        return x


class Bert(nn.Module):
    """The encoder; use `encode` through `apply(..., method=...)`."""

    config: BertConfig

    def setup(self) -> None:
        cfg = self.config
        self.words = self._table(cfg.vocab_size)
        self.positions = self._table(cfg.max_position_embeddings)
        self.types = self._table(cfg.type_vocab_size)
        self.embedding_norm, self.encoder = LayerNorm(cfg), Encoder(cfg)
        self.dropout = nn.Dropout(cfg.dropout_rate)

    def _table(self, rows: int) -> nn.Embed:
        return nn.Embed(
            rows,
            self.config.hidden_size,
            param_dtype=self.config.stored_dtype,
            embedding_init=nn.initializers.normal(_STDDEV),
        )

    def encode(
        self,
        words: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        deterministic: bool = True,
    ) -> Float[Array, "B T D"]:
        """Encodes texts whose words are already embedded; `mask` is False at padding (on the right with `attention=cudnn`)."""
        positions = self.positions.embedding[: words.shape[1]]  # [T, D]
        segment = self.types.embedding[0]  # of all tokens: texts are never pairs
        # Added in the type of activations: tables of 16 bits would round each sum.
        words, positions, segment = (
            part.astype(self.config.compute_dtype) for part in (words, positions, segment)
        )
        x = self.dropout(self.embedding_norm(words + (positions + segment)), deterministic)
        with matmul_precision(self.config):
            states: Array = self.encoder(x, mask[:, None, None, :], deterministic)
        return states

    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Returns the states for token ids (0 = padding); uses every parameter."""
        return self.encode(self.words(ids), ids != 0)


def shapes(config: BertConfig) -> Any:
    """Returns the tree of parameters as shapes."""
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    module = Bert(replace(config, attention="xla"))  # cuDNN cannot be traced on CPU
    return jax.eval_shape(module.init, jax.random.key(0), ids)["params"]
