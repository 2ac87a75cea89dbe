"""BERT as the rest of the package sees it: an encoder and its token table."""

from dataclasses import dataclass, replace
from typing import Any, Self, cast

import jax
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.bert import Bert, shapes
from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.compute_settings import check_heads
from delrec_jax.language.family import LanguageModel, Sizes
from delrec_jax.language.logical_axes import Axes, constrain, named_axes
from delrec_jax.language.soft_prompt import embed_with_prompt

axes_of = named_axes(
    kernels={
        **dict.fromkeys(("q", "k", "v"), ("embed", "heads")),
        "o": ("heads", "embed"),
        "wi": ("embed", "mlp"),
        "wo": ("mlp", "embed"),
    },
    tables={"words": ("vocab", None), **dict.fromkeys(("positions", "types"), (None, None))},
)


@dataclass(frozen=True)
class BertModel(LanguageModel):
    """A BERT encoder of one shape.

    Attributes:
      config: its shape, and how it is computed.
      fused: for `delrec plan`: whether a device would attend by cuDNN's kernel, though `config` says XLA.
    """

    config: BertConfig
    fused: bool = False

    @property
    def module(self) -> Bert:
        """The Linen module."""
        return Bert(self.config)

    @property
    def width(self) -> int:
        return self.config.hidden_size

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def longest_text(self) -> int:
        return self.config.max_position_embeddings

    @property
    def description(self) -> str:
        return (
            f"BERT, hidden_size {self.config.hidden_size}, {self.config.num_hidden_layers} layers"
        )

    @property
    def pooling(self) -> str:
        return self.config.pooling

    @property
    def quantises(self) -> bool:
        """Yes: see `adalora.Projection`."""
        return True

    @property
    def running(self) -> str:
        cfg = self.config
        return f"kept in {cfg.param_dtype}, computes in {cfg.dtype}, remat {cfg.remat}" + (
            ", attention cudnn" if self.sizes.fused else ""
        )

    @property
    def sizes(self) -> Sizes:
        cfg = self.config
        return Sizes(
            heads=cfg.num_attention_heads,
            head_width=cfg.head_width,
            feed_forward=cfg.intermediate_size,
            encoder_blocks=cfg.num_hidden_layers,
            decoder_blocks=0,
            activation_bytes=cfg.compute_dtype.itemsize,
            weight_bytes=cfg.stored_dtype.itemsize,
            remat=cfg.remat,
            fused=self.fused or cfg.attention == "cudnn",
        )

    @property
    def dropout_rate(self) -> float:
        return self.config.dropout_rate

    def encode(
        self,
        params: Any,
        ids: Int[Array, "B T"],
        *,
        prompt: Float[Array, "K D"] | None = None,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        if ids.shape[1] > self.longest_text:
            raise UserError(
                f"texts padded to {ids.shape[1]} tokens, but this {self.description} has "
                f"{self.longest_text} positions: lower prompts.max_tokens, parse.max_tokens or prompts.max_title_tokens"
            )
        mask = ids != 0
        words = constrain(embed_with_prompt(self.table(params), prompt, ids), "batch", None, None)
        states = self.module.apply(
            {"params": params} | ({} if adapters is None else {"adapters": adapters}),
            words,
            mask,
            dropout_key is None,
            method="encode",
            rngs={} if dropout_key is None else {"dropout": dropout_key},
        )
        return cast(Array, states), mask

    def table(self, params: Any) -> Float[Array, "V D"]:
        return cast(Array, params["words"]["embedding"])

    def with_adapters(self, adapters: AdaLoRAConfig | None) -> Self:
        return replace(self, config=replace(self.config, adapters=adapters))

    def param_shapes(self) -> Any:
        return shapes(self.config)

    def axes_of(self, path: tuple[str, ...], shape: tuple[int, ...]) -> Axes:
        return axes_of(path, shape)

    def check_mesh(self, tensor: int) -> None:
        check_heads(self.config.num_attention_heads, tensor)
