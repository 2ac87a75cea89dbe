"""The shape of a BERT encoder, with the names used in Hugging Face's `config.json`."""

from dataclasses import dataclass

import jax.numpy as jnp

from delrec_jax.choices import one_of
from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.compute_settings import check_running
from delrec_jax.language.pooling import POOLS


@dataclass(frozen=True)
class BertConfig:
    """A BERT encoder of any size; the defaults are those of `all-MiniLM-L6-v2`.

    Attributes:
      vocab_size: rows of the token table.
      hidden_size: D, the width.
      num_hidden_layers: its blocks.
      intermediate_size: width of the feed-forward layers.
      type_vocab_size: token types; all tokens have the first.
      layer_norm_eps: added to the variance in a norm.
      num_attention_heads: its heads share the width.
      max_position_embeddings: P, the tokens of the longest text that can be read.
      dropout_rate: `hidden_dropout_prob`; attention weights are never dropped.
      dtype: type of activations, `float32` or `bfloat16`. Norms and softmax are always float32.
      param_dtype: type of the base weights in memory, also `float16`; adapters and prompt are always float32.
      precision: of matrix products in float32: `default`, `high` or `highest`. By default they are computed in TF32 on an H100
        and in bfloat16 on a TPU; a CPU always computes in float32. Item scores are always computed in float32.
      remat: what the backward pass recomputes: `none`, `full` = each block (least memory, most time), or `dots` = all of a
        block but its products with weights and the result of cuDNN's attention.
      pooling: how a title becomes a vector, as the encoder was trained: `mean` of its states (MiniLM, E5), or `first`, the
        state of `[CLS]` (BGE).
      attention: `xla`, or `cudnn` on an NVIDIA GPU in bfloat16; odd numbers of tokens attend by XLA.
      adapters: which projections carry AdaLoRA when an `adapters` collection is passed; None = plain. In code only: a run sets
        it by `tune.adalora` and `parse.adalora`.
    """

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    dropout_rate: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    precision: str = "default"
    remat: str = "none"
    pooling: str = "mean"
    attention: str = "xla"
    adapters: AdaLoRAConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.dropout_rate < 1:
            raise UserError(
                f"lm.bert.dropout_rate is {self.dropout_rate}: it must be at least 0 and under 1"
            )
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"lm.bert.hidden_size is {self.hidden_size}: it must be a multiple of "
                f"num_attention_heads ({self.num_attention_heads})"
            )
        one_of("lm.bert.pooling", self.pooling, tuple(POOLS))
        check_running("lm.bert", self, head_width=self.head_width)

    @property
    def head_width(self) -> int:
        """K, the width of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The type of activations; norms and softmax stay float32."""
        return jnp.dtype(self.dtype)

    @property
    def stored_dtype(self) -> jnp.dtype:
        """The type of the base weights."""
        return jnp.dtype(self.param_dtype)
