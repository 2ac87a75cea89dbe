"""The shape of a T5, with the names used in Hugging Face's `config.json`."""

from dataclasses import dataclass

import jax.numpy as jnp

from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.compute_settings import check_running


@dataclass(frozen=True)
class T5Config:
    """A T5 of any size; the defaults are those of Flan-T5 small.

    Attributes:
      vocab_size: rows of the token table.
      d_model: D, the width.
      d_kv: width of each attention head.
      d_ff: width of the feed-forward layers.
      num_layers: blocks of the encoder.
      num_heads: attention heads of a block.
      relative_attention_num_buckets: distances between tokens that attention tells apart.
      relative_attention_max_distance: from here on, in tokens, all distances are one.
      dropout_rate: in training, of embeddings, sublayer outputs, hidden values of feed-forward layers and final states;
        attention weights, which T5 itself drops too, are never dropped.
      layer_norm_epsilon: added to the mean square in a norm.
      num_decoder_layers: 0 = the encoder alone, without a head (`lm.read=encoder`).
      feed_forward_proj: `gated-gelu` (v1.1, Flan) or `relu` (v1.0).
      tie_word_embeddings: v1.0 shares the table with the output head and scales the decoder's output by d_model**-0.5;
        v1.1 and Flan have a separate head and do not scale.
      scale_decoder_outputs: multiply the decoder's output by d_model**-0.5 before the head; None = if the head is tied.
      dtype: type of activations, `float32` or `bfloat16`. Norms, softmax and logits are always float32.
      param_dtype: type of the base weights in memory, also `float16`; adapters and prompt are always float32.
      precision: of matrix products in float32: `default`, `high` or `highest`. By default they are computed in TF32 on an H100
        and in bfloat16 on a TPU; a CPU always computes in float32. Item scores are always computed in float32.
      remat: what the backward pass recomputes: `none`, `full` = each block (least memory, most time), or `dots` = all of a
        block but its products with weights and the result of cuDNN's attention.
      scan_layers: compile one block and loop over it: quicker to compile from about 12 blocks on, slower to run on CPU;
        weights are then kept with a leading layer axis (`layer_stacking`).
      attention: `xla`, or `cudnn` on an NVIDIA GPU in bfloat16: for the encoder's self-attention, and for cross-attention of
        long answers (`lm.verbalizer=sequence`). Odd numbers of tokens attend by XLA. JAX has nothing like it for T5 on a TPU
        (fused_attention.py says why).
      adapters: which projections carry AdaLoRA when an `adapters` collection is passed; None = plain. In code only: a run sets
        it by `tune.adalora` and `parse.adalora`.
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
    scale_decoder_outputs: bool | None = None
    dtype: str = "float32"
    param_dtype: str = "float32"
    precision: str = "default"
    remat: str = "none"
    scan_layers: bool = False
    attention: str = "xla"
    adapters: AdaLoRAConfig | None = None

    def __post_init__(self) -> None:
        if self.feed_forward_proj not in ("gated-gelu", "relu"):
            raise UserError(
                f"lm.t5.feed_forward_proj is {self.feed_forward_proj!r}: use 'gated-gelu' (T5 v1.1, Flan) or 'relu' (v1.0)"
            )
        check_running("lm.t5", self, head_width=self.d_kv)

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The type of activations; norms, softmax and logits stay float32."""
        return jnp.dtype(self.dtype)

    @property
    def stored_dtype(self) -> jnp.dtype:
        """The type of the base weights."""
        return jnp.dtype(self.param_dtype)

    @property
    def encoder_alone(self) -> bool:
        """Whether there are only the token table and the encoder."""
        return self.num_decoder_layers == 0

    @property
    def output_scale(self) -> float:
        """The factor by which the decoder's output is multiplied before the head."""
        scaled = self.scale_decoder_outputs
        if scaled is None:
            scaled = self.tie_word_embeddings
        return self.d_model**-0.5 if scaled else 1.0
