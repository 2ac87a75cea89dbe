"""The shape of a T5, in the words of Hugging Face's `config.json`."""

from dataclasses import dataclass

import jax.numpy as jnp

from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig


@dataclass(frozen=True)
class T5Config:
    """A T5 of any size; the defaults are Flan-T5 small, the presets below are ours.

    Attributes:
      feed_forward_proj: `gated-gelu` (v1.1, Flan) or `relu` (v1.0).
      tie_word_embeddings: v1.0 shares the table with the output head and scales the decoder's output by d_model**-0.5;
        v1.1 and Flan own a separate head and do not scale.
      remat: recompute each block in the backward pass (less memory, more time).
      adapters: which projections carry AdaLoRA when an `adapters` collection is passed; None = plain.
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 8
    num_decoder_layers: int = 8
    num_heads: int = 6
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "gated-gelu"
    tie_word_embeddings: bool = False
    dtype: str = "float32"
    remat: bool = False
    adapters: AdaLoRAConfig | None = None

    def __post_init__(self):
        if self.feed_forward_proj not in ("gated-gelu", "relu"):
            raise UserError(
                f"lm.t5.feed_forward_proj is {self.feed_forward_proj!r}: use 'gated-gelu' (T5 v1.1, Flan) or 'relu' (v1.0)"
            )

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The type of activations; norms, softmax and logits stay float32."""
        return jnp.dtype(self.dtype)
