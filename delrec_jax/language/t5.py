"""T5 (v1.0, v1.1 and Flan) in Flax Linen: pure functions of a parameter tree.

An encoder over the prompt, a decoder over the answer. Two things differ from a plain T5, both for
ranking. The encoder takes embeddings, so that a soft prompt can be spliced in (soft_prompt.py). The
decoder takes explicit positions and segments, so that many short answers (one query for each MASK of a
text, or all candidates of a user) share one encoder pass in one row without seeing each other.

Source: Raffel et al. 2020; Shazeer 2020 (gated GELU). Parity with PyTorch: tests/parity.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.adalora import Projection
from delrec_jax.language.attention import Attention, RelativeBias
from delrec_jax.language.t5_config import T5Config


class RMSNorm(nn.Module):
    """T5's layer norm: no mean, no bias, computed in float32."""

    config: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Scales x to unit root mean square, then by a learned weight."""
        weight = self.param("weight", nn.initializers.ones, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        variance = jnp.square(x32).mean(-1, keepdims=True)
        y = x32 / jnp.sqrt(variance + self.config.layer_norm_epsilon)
        return (weight * y).astype(self.config.compute_dtype)


class FeedForward(nn.Module):
    """ReLU (v1.0) or gated GELU (v1.1, Flan) feed-forward network."""

    config: T5Config

    def setup(self):
        cfg = self.config
        gated = cfg.feed_forward_proj == "gated-gelu"
        for name in ("wi_0", "wi_1") if gated else ("wi",):
            setattr(self, name, Projection(cfg, cfg.d_ff, cfg.d_model**-0.5))
        self.wo = Projection(cfg, cfg.d_model, cfg.d_ff**-0.5)
        self.dropout = nn.Dropout(cfg.dropout_rate)

    def __call__(self, x: Float[Array, "B T D"], deterministic: bool) -> Float[Array, "B T D"]:
        """Returns the transformed x, without the residual."""
        if self.config.feed_forward_proj == "gated-gelu":
            gate = nn.gelu(self.wi_0(x, deterministic), approximate=True)
            hidden = gate * self.wi_1(x, deterministic)
        else:
            hidden = nn.relu(self.wi(x, deterministic))
        return self.wo(self.dropout(hidden, deterministic), deterministic)


class Block(nn.Module):
    """Self-attention, cross-attention in the decoder, feed-forward; pre-norm with residuals."""

    config: T5Config
    is_decoder: bool

    def setup(self):
        cfg = self.config
        self.SelfAttention, self.self_norm = Attention(cfg), RMSNorm(cfg)
        if self.is_decoder:
            self.EncDecAttention, self.cross_norm = Attention(cfg), RMSNorm(cfg)
        self.DenseReluDense, self.ff_norm = FeedForward(cfg), RMSNorm(cfg)
        self.dropout = nn.Dropout(cfg.dropout_rate)

    def __call__(self, x, bias, mask, encoded, encoded_mask, deterministic: bool):
        """x [B, T, D] -> [B, T, D]; `encoded` and its mask are None in the encoder."""

        def residual(x, y):
            return x + self.dropout(y, deterministic)

        normed = self.self_norm(x)
        attended = self.SelfAttention(
            normed, normed, bias=bias, mask=mask, deterministic=deterministic
        )
        x = residual(x, attended)
        if self.is_decoder:
            attended = self.EncDecAttention(
                self.cross_norm(x),
                encoded,
                bias=None,
                mask=encoded_mask,
                deterministic=deterministic,
            )
            x = residual(x, attended)
        return residual(x, self.DenseReluDense(self.ff_norm(x), deterministic))


class Stack(nn.Module):
    """All blocks of the encoder or of the decoder, one relative bias for all, a final norm."""

    config: T5Config
    is_decoder: bool

    @nn.compact
    def __call__(
        self, x, positions, mask, encoded=None, encoded_mask=None, *, deterministic: bool
    ) -> Float[Array, "B T D"]:
        """x [B, T, D], positions [B, T], mask [B, 1, T, T] -> hidden states [B, T, D]."""
        cfg = self.config
        bias = RelativeBias(cfg, not self.is_decoder, name="relative_attention_bias")(
            positions, positions
        )
        dropout = nn.Dropout(cfg.dropout_rate)
        # Argument 6 is `deterministic` (0 is the module itself): a Python bool, not traced.
        block_class = nn.remat(Block, static_argnums=(6,)) if cfg.remat else Block
        layers = cfg.num_decoder_layers if self.is_decoder else cfg.num_layers
        x = dropout(x, deterministic)
        for index in range(layers):
            block = block_class(cfg, self.is_decoder, name=f"block_{index}")
            x = block(x, bias, mask, encoded, encoded_mask, deterministic)
        return dropout(RMSNorm(cfg, name="final_layer_norm")(x), deterministic)


class T5(nn.Module):
    """The whole model; use `encode` and `decode` through `apply(..., method=...)`."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.shared = nn.Embed(
            cfg.vocab_size, cfg.d_model, embedding_init=nn.initializers.normal(1.0)
        )
        self.encoder = Stack(cfg, is_decoder=False)
        self.decoder = Stack(cfg, is_decoder=True)
        if not cfg.tie_word_embeddings:
            self.lm_head = Projection(cfg, cfg.vocab_size, cfg.d_model**-0.5)

    def encode(
        self,
        embeddings: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        deterministic: bool = True,
    ) -> Float[Array, "B T D"]:
        """Encodes already embedded text; `mask` is False at padding, on either side."""
        positions = jnp.arange(mask.shape[1])[None]  # one row: the bias is shared by the batch
        return self.encoder(
            embeddings.astype(self.config.compute_dtype),
            positions,
            mask[:, None, None, :],
            deterministic=deterministic,
        )

    def decode(
        self,
        ids: Int[Array, "B U"],
        encoded: Float[Array, "B T D"],
        encoded_mask: Bool[Array, "B T"],
        *,
        segments: Int[Array, "#B U"] | None = None,
        positions: Int[Array, "#B U"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B U D"]:
        """Hidden states of the decoder, ready for the head (already scaled where the head is tied).

        Args:
          ids: decoder input tokens.
          encoded: output of `encode`.
          encoded_mask: False at the encoder's padding.
          segments: tokens attend only within their own segment; None = one segment a row.
          positions: place within the segment; None = 0, 1, 2, ...
          deterministic: False while training (dropout).
        """
        if segments is None:
            segments = jnp.zeros_like(ids[:1])
        if positions is None:
            positions = jnp.arange(ids.shape[1])[None]
        causal = positions[:, :, None] >= positions[:, None, :]
        own = segments[:, :, None] == segments[:, None, :]
        hidden = self.decoder(
            self.shared(ids).astype(self.config.compute_dtype),
            positions,
            (causal & own)[:, None],
            encoded,
            encoded_mask[:, None, None, :],
            deterministic=deterministic,
        )
        return hidden * self.config.d_model**-0.5 if self.config.tie_word_embeddings else hidden

    def logits(self, hidden: Float[Array, "B U D"]) -> Float[Array, "B U V"]:
        """Vocabulary logits in float32."""
        if self.config.tie_word_embeddings:
            return self.shared.attend(hidden).astype(jnp.float32)
        return self.lm_head(hidden, True).astype(jnp.float32)

    def __call__(self, ids: Int[Array, "B T"], decoder_ids: Int[Array, "B U"]) -> Array:
        """Token ids (0 = padding) and decoder ids to logits [B, U, V]; touches every parameter."""
        mask = ids != 0
        encoded = self.encode(self.shared(ids), mask)
        return self.logits(self.decode(decoder_ids, encoded, mask))


def head_matrix(params: dict, config: T5Config) -> Float[Array, "V D"]:
    """One row of output weights a vocabulary entry: logits = hidden @ head_matrix.T."""
    if config.tie_word_embeddings:
        return params["shared"]["embedding"]
    return params["lm_head"]["kernel"].T
