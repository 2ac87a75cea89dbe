"""T5 (v1.0, v1.1 and Flan) in Flax Linen: pure functions of a parameter tree.

The encoder reads the prompt, the decoder the answer. Two things differ from a plain T5, both for
ranking. The encoder takes embeddings, so that a soft prompt can be spliced in (soft_prompt.py). The
decoder takes many short answers to one text at once (one for each MASK, or all candidates of a user):
they share the text's encoding and do not attend to each other.

Source: Raffel et al. 2020; Shazeer 2020 (gated GELU). Parity with PyTorch: tests/parity.
"""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.activations import gated_gelu
from delrec_jax.language.adalora import AdapterDropout, Projection
from delrec_jax.language.attention import Attention, RelativeBias
from delrec_jax.language.compute_settings import matmul_precision, recomputed
from delrec_jax.language.layer_stacking import STACKED
from delrec_jax.language.logical_axes import constrain
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.token_table import look_up

# Bias, mask, encoded text and its mask (None in the encoder): the same for every block of a stack.
Context = tuple[Array, Array, Array | None, Array | None]


class RMSNorm(nn.Module):
    """T5's layer norm: no mean, no bias, computed in float32."""

    config: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Scales x to unit root mean square, then by a learned weight."""
        weight = self.param(
            "weight", nn.initializers.ones, (x.shape[-1],), self.config.stored_dtype
        )
        x32 = x.astype(jnp.float32)
        variance = jnp.square(x32).mean(-1, keepdims=True)
        y = x32 / jnp.sqrt(variance + self.config.layer_norm_epsilon)
        return (weight * y).astype(self.config.compute_dtype)


class FeedForward(nn.Module):
    """ReLU (v1.0) or gated GELU (v1.1, Flan) feed-forward network."""

    config: T5Config

    def setup(self) -> None:
        cfg = self.config
        gated = cfg.feed_forward_proj == "gated-gelu"
        for name in ("wi_0", "wi_1") if gated else ("wi",):
            setattr(self, name, Projection(cfg, cfg.d_model, cfg.d_ff, cfg.d_model**-0.5))
        self.wo = Projection(cfg, cfg.d_ff, cfg.d_model, cfg.d_ff**-0.5)
        self.dropout = nn.Dropout(cfg.dropout_rate)
        self.adapter_dropout = AdapterDropout(cfg)

    def __call__(self, x: Float[Array, "B T D"], deterministic: bool) -> Float[Array, "B T D"]:
        """Returns the transformed x, without the residual."""
        dropped = self.adapter_dropout(x, deterministic)
        if self.config.feed_forward_proj == "gated-gelu":
            hidden = gated_gelu(self.wi_0(x, dropped), self.wi_1(x, dropped))
        else:
            hidden = nn.relu(self.wi(x, dropped))
        hidden = constrain(self.dropout(hidden, deterministic), "batch", None, "mlp")
        return self.wo(hidden, self.adapter_dropout(hidden, deterministic))


class Block(nn.Module):
    """Self-attention, cross-attention in the decoder, feed-forward; pre-norm with residuals."""

    config: T5Config
    is_decoder: bool

    def setup(self) -> None:
        cfg = self.config
        self.SelfAttention, self.self_norm = Attention(cfg), RMSNorm(cfg)
        if self.is_decoder:
            self.EncDecAttention, self.cross_norm = Attention(cfg), RMSNorm(cfg)
        self.DenseReluDense, self.ff_norm = FeedForward(cfg), RMSNorm(cfg)
        self.dropout = nn.Dropout(cfg.dropout_rate)

    def __call__(
        self, x: Float[Array, "B T D"], context: Context, deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Transforms x, given the context that all blocks of the stack share.

        In the decoder x is [B * N, U, D]: N answers to each of the B encoded texts, which attend to their text as if
        they were one answer of N * U tokens.
        """

        def residual(x: Float[Array, "B T D"], y: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
            dropped: Array = self.dropout(y, deterministic)
            return x + dropped

        bias, mask, encoded, encoded_mask = context
        normed = self.self_norm(x)
        attended = self.SelfAttention(
            normed, normed, bias=bias, mask=mask, deterministic=deterministic
        )
        x = residual(x, attended)
        if encoded is not None:
            attended = self.EncDecAttention(
                self.cross_norm(x).reshape(encoded.shape[0], -1, x.shape[-1]),  # [B, N * U, D]
                encoded,
                bias=None,
                mask=cast(Array, encoded_mask),
                deterministic=deterministic,
            )
            x = residual(x, attended.reshape(x.shape))  # [B * N, U, D]
        x = residual(x, self.DenseReluDense(self.ff_norm(x), deterministic))
        return constrain(x, "batch", None, None)


class Stack(nn.Module):
    """All blocks of the encoder or of the decoder, with one relative bias for all and a final norm."""

    config: T5Config
    is_decoder: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "#B 1 #T T"],
        encoded: Float[Array, "b S D"] | None = None,
        encoded_mask: Bool[Array, "b 1 1 S"] | None = None,
        *,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Returns hidden states; in the decoder x holds B / b answers to each of b encoded texts of S tokens."""
        cfg = self.config
        bias = RelativeBias(cfg, not self.is_decoder, name="relative_attention_bias")(x.shape[1])
        dropout = nn.Dropout(cfg.dropout_rate)
        block_class = recomputed(Block, cfg.remat, scanned=cfg.scan_layers)
        layers = cfg.num_decoder_layers if self.is_decoder else cfg.num_layers
        context = (bias, mask, encoded, encoded_mask)
        x = dropout(x, deterministic)
        if cfg.scan_layers:
            block = block_class(cfg, self.is_decoder, name=STACKED)
            x, _ = _scanned(layers, deterministic)(block, x, context)
        else:
            for index in range(layers):
                block = block_class(cfg, self.is_decoder, name=f"block_{index}")
                x = block(x, context, deterministic)
        hidden: Array = dropout(RMSNorm(cfg, name="final_layer_norm")(x), deterministic)
        return hidden


def _scanned(
    layers: int, deterministic: bool
) -> Callable[[Block, Array, Context], tuple[Array, None]]:
    """Returns a loop of one block over the leading axis of its weights, with the same context in every round."""

    def body(block: Block, x: Float[Array, "B T D"], context: Context) -> tuple[Array, None]:
        return block(x, context, deterministic), None

    return nn.scan(
        body,
        variable_axes={"params": 0, "adapters": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,
        length=layers,
    )


class T5(nn.Module):
    """The full model; use `encode` and `decode` through `apply(..., method=...)`."""

    config: T5Config

    def setup(self) -> None:
        cfg = self.config
        self.shared = nn.Embed(
            cfg.vocab_size,
            cfg.d_model,
            param_dtype=cfg.stored_dtype,
            embedding_init=nn.initializers.normal(1.0),
        )
        self.encoder = Stack(cfg, is_decoder=False)
        self.decoder = Stack(cfg, is_decoder=True)
        if not cfg.tie_word_embeddings:
            self.lm_head = Projection(cfg, cfg.d_model, cfg.vocab_size, cfg.d_model**-0.5)

    def encode(
        self,
        embeddings: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        deterministic: bool = True,
    ) -> Float[Array, "B T D"]:
        """Encodes already embedded text; `mask` is False at padding, on either side (on the right with `attention=cudnn`)."""
        with matmul_precision(self.config):
            return self.encoder(
                embeddings.astype(self.config.compute_dtype),
                mask[:, None, None, :],  # [B, 1, 1, T]
                deterministic=deterministic,
            )

    def states(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Returns the encoder's states for token ids (0 = padding); uses the parameters of the encoder alone."""
        return self.encode(self.shared(ids), ids != 0)

    def decode(
        self,
        ids: Int[Array, "B N U"],
        encoded: Float[Array, "B T D"],
        encoded_mask: Bool[Array, "B T"],
        deterministic: bool = True,
    ) -> Float[Array, "B N U D"]:
        """Returns the decoder's hidden states, ready for the head (scaled if the config says so).

        Args:
          ids: decoder input tokens of N answers per text; tokens after the end of an answer do not affect it.
          encoded: output of `encode`.
          encoded_mask: False at the encoder's padding.
          deterministic: False while training (dropout).
        """
        answers, length = ids.shape[1:]
        # Answers are folded into the batch, so that self-attention costs N * U^2 instead of (N * U)^2.
        embedded = look_up(self.shared.embedding, ids.reshape(-1, length))  # [B * N, U, D]
        with matmul_precision(self.config):
            hidden = self.decoder(
                embedded.astype(self.config.compute_dtype),
                jnp.tri(length, dtype=bool)[None, None],
                encoded,
                encoded_mask[:, None, None, :],
                deterministic=deterministic,
            )
        hidden = hidden.reshape(-1, answers, *hidden.shape[1:])  # [B, N, U, D]
        return hidden * self.config.output_scale

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Returns vocabulary logits in float32."""
        # In 16 bits a product would be rounded before it is float32.
        hidden = hidden.astype(jnp.float32)
        with matmul_precision(self.config):
            if self.config.tie_word_embeddings:
                return jnp.dot(hidden, self.shared.embedding.astype(jnp.float32).T)
            return self.lm_head(hidden, hidden)

    def __call__(
        self, ids: Int[Array, "B T"], decoder_ids: Int[Array, "B U"]
    ) -> Float[Array, "B U V"]:
        """Returns the logits for token ids (0 = padding) and decoder ids; uses every parameter."""
        return self.logits(self.decode(decoder_ids[:, None], self.states(ids), ids != 0)[:, 0])


def head_matrix(params: dict[str, Any], config: T5Config) -> Float[Array, "V D"]:
    """Returns one row of output weights per vocabulary entry: logits = hidden @ head_matrix.T."""
    if config.tie_word_embeddings:
        return cast(Array, params["shared"]["embedding"])
    return cast(Array, params["lm_head"]["kernel"]).T  # [D, V] -> [V, D]
