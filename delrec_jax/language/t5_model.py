"""T5 as the rest of the package sees it: the encoder alone, or with answers of the decoder and a head."""

from dataclasses import dataclass, replace
from typing import Any, Self, cast

import jax
from flax import traverse_util
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.compute_settings import check_heads
from delrec_jax.language.family import AnsweringModel, LanguageModel, Sizes
from delrec_jax.language.logical_axes import Axes, named_axes
from delrec_jax.language.t5 import T5, head_matrix
from delrec_jax.language.t5_answers import (
    answer_states,
    encoded_texts,
    hidden_at_masks,
    teacher_forced,
)
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_names import leaves

axes_of = named_axes(
    kernels={
        **dict.fromkeys(("q", "k", "v"), ("embed", "heads")),
        "o": ("heads", "embed"),
        **dict.fromkeys(("wi", "wi_0", "wi_1"), ("embed", "mlp")),
        "wo": ("mlp", "embed"),
        "lm_head": (None, "vocab"),
    },
    tables={"shared": ("vocab", None), "relative_attention_bias": (None, "heads")},
)


@dataclass(frozen=True)
class T5Encoder(LanguageModel):
    """The encoder of a T5 of one shape.

    Attributes:
      config: its shape, and how it is computed.
      fused: for `delrec plan`: whether a device would attend by cuDNN's kernel, though `config` says XLA.
    """

    config: T5Config
    fused: bool = False

    @property
    def module(self) -> T5:
        """The Linen module."""
        return T5(self.config)

    @property
    def width(self) -> int:
        return self.config.d_model

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def description(self) -> str:
        cfg = self.config
        if cfg.encoder_alone:
            return f"T5's encoder alone, d_model {cfg.d_model}, {cfg.num_layers} layers"
        return f"T5, d_model {cfg.d_model}, {cfg.num_layers}+{cfg.num_decoder_layers} layers"

    @property
    def running(self) -> str:
        cfg = self.config
        return (
            f"kept in {cfg.param_dtype}, computes in {cfg.dtype}, remat {cfg.remat}, scan_layers {cfg.scan_layers}"
            + (", attention cudnn" if self.sizes.fused else "")
        )

    @property
    def sizes(self) -> Sizes:
        cfg = self.config
        return Sizes(
            heads=cfg.num_heads,
            head_width=cfg.d_kv,
            feed_forward=cfg.d_ff,
            encoder_blocks=cfg.num_layers,
            decoder_blocks=cfg.num_decoder_layers,
            activation_bytes=cfg.compute_dtype.itemsize,
            weight_bytes=cfg.stored_dtype.itemsize,
            remat=cfg.remat,
            fused=self.fused or cfg.attention == "cudnn",
        )

    @property
    def dropout_rate(self) -> float:
        return self.config.dropout_rate

    def encode(
        self, params: Any, ids: Int[Array, "B T"], **options: Any
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        return encoded_texts(self.module, params, ids, **options)

    def table(self, params: Any) -> Float[Array, "V D"]:
        return cast(Array, params["shared"]["embedding"])

    def with_adapters(self, adapters: AdaLoRAConfig | None) -> Self:
        return replace(self, config=replace(self.config, adapters=adapters))

    def param_shapes(self) -> Any:
        return traverse_util.unflatten_dict(
            {
                leaf.path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
                for leaf in leaves(self.config)
            }
        )

    def axes_of(self, path: tuple[str, ...], shape: tuple[int, ...]) -> Axes:
        return axes_of(path, shape)

    def check_mesh(self, tensor: int) -> None:
        check_heads(self.config.num_heads, tensor)


@dataclass(frozen=True)
class T5Model(T5Encoder, AnsweringModel):
    """An entire T5 of one shape."""

    @property
    def quantises(self) -> bool:
        """Yes: see `adalora.Projection`."""
        return True

    @property
    def closed(self) -> tuple[str, ...]:
        return ("lm_head",)

    def answers(
        self, params: Any, ids: Int[Array, "B T"], sentinels: Int[Array, "B Q"], **options: Any
    ) -> Float[Array, "B Q D"]:
        return hidden_at_masks(self.module, params, ids, sentinels, **options)

    def forced_answers(
        self,
        params: Any,
        ids: Int[Array, "B T"],
        titles: Int[Array, "B N W"],
        sentinel: int,
        **options: Any,
    ) -> Float[Array, "B N W D"]:
        hidden = answer_states(
            self.module, params, ids, teacher_forced(titles, sentinel), **options
        )
        # The state at the start token would predict the sentinel, which is given.
        return hidden[:, :, 1:]  # [B, N, W + 1, D] -> [B, N, W, D]

    def head(self, params: Any) -> Float[Array, "V D"]:
        return head_matrix(params, self.config)

    def logits(self, params: Any, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return cast(Array, self.module.apply({"params": params}, hidden, method="logits"))
