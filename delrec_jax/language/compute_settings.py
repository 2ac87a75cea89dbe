"""How a language model of any family is computed: types, precision, kernel, what is recomputed, and what takes less memory."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import flax.linen as nn
import jax

from delrec_jax.errors import UserError
from delrec_jax.language.fused_attention import FORWARD

REMAT = ("none", "dots", "full")
PRECISIONS = ("default", "high", "highest")
_COMPUTED = ("float32", "bfloat16")
_dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable


class Running(Protocol):
    """What a model's config must provide; `T5Config` and `BertConfig` do."""

    @property
    def dtype(self) -> str: ...

    @property
    def param_dtype(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def remat(self) -> str: ...

    @property
    def attention(self) -> str: ...


def check_running(section: str, config: Running, *, head_width: int) -> None:
    """Checks these settings of a model.

    Args:
      section: the section that the config is, such as `lm.t5`.
      config: the model's config.
      head_width: K, the width of a head.

    Raises:
      UserError: a setting has no such value, or cuDNN's kernel does not compute in this type or width.
    """
    if config.dtype == "float16":
        raise UserError(
            f"{section}.dtype is 'float16', in which T5's feed-forward networks overflow and gradients need a scaled loss: use "
            "bfloat16 (weights can be kept in it, by param_dtype)"
        )
    _check_among(f"{section}.dtype", config.dtype, _COMPUTED)
    _check_among(f"{section}.param_dtype", config.param_dtype, (*_COMPUTED, "float16"))
    hint = " (full is what True was, none what False was)"
    _check_among(f"{section}.remat", config.remat, REMAT, hint)
    _check_among(f"{section}.precision", config.precision, PRECISIONS)
    _check_among(f"{section}.attention", config.attention, ("xla", "cudnn"))
    if config.attention == "cudnn" and config.dtype == "float32":
        raise UserError(
            f"{section}.attention=cudnn computes in 16 bits: set {section}.dtype=bfloat16 too, or use 'xla'"
        )
    if config.attention == "cudnn" and (head_width % 8 or head_width > 256):
        raise UserError(
            f"{section}.attention=cudnn needs heads whose width is a multiple of 8 up to 256, and this model's is "
            f"{head_width}: use 'xla'"
        )


def _check_among(key: str, value: str, known: tuple[str, ...], hint: str = "") -> None:
    if value not in known:
        raise UserError(f"{key} is {value!r}: use one of {', '.join(known)}{hint}")


def matmul_precision(config: Running) -> AbstractContextManager[Any]:
    """A context in which matrix products are traced with `precision`; `default` leaves it to JAX and its environment."""
    if config.precision == "default":
        return nullcontext()
    found: AbstractContextManager[Any] = jax.default_matmul_precision(config.precision)
    return found


def recomputed(block: Any, remat: str, *, scanned: bool) -> Any:
    """Returns a Linen block class whose values the backward pass recomputes as `remat` says.

    Args:
      block: called as `block(x, context, deterministic)`; the last is a Python bool.
      remat: one of `REMAT`.
      scanned: whether a loop applies the block: XLA does not merge a loop's body with its recomputation, which must otherwise
        be prevented, at the cost of other optimizations.
    """
    if remat == "none":
        return block
    return nn.remat(
        block,
        static_argnums=(3,),  # 0 is the module itself
        policy=_keeps if remat == "dots" else None,
        prevent_cse=not scanned,
    )


def _keeps(primitive: Any, *operands: Any, **settings: Any) -> bool:
    """Whether `dots` keeps a value: products with weights, and what the fused kernel computes, but no attention weights."""
    fused: bool = primitive.name == FORWARD
    return fused or _dots(primitive, *operands, **settings)


def check_heads(heads: int, tensor: int) -> None:
    """Rejects a mesh that would split a head of attention.

    Raises:
      UserError: the heads do not divide over `tensor` devices.
    """
    if heads % tensor:
        raise UserError(
            f"mesh.tensor is {tensor}, but the language model has {heads} heads, which do not divide over it: use a divisor, "
            "and mesh.fsdp for the rest"
        )


def in_less_memory(section: str, config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields what `Family.smaller` does for a model whose config has `remat`, `param_dtype` and `dtype`.

    Args:
      section: name of the config in `lm`.
      config: the config, a frozen dataclass.
    """
    for setting, value in (
        ("remat", "full"),
        ("remat", "dots"),
        ("param_dtype", "bfloat16"),
        ("dtype", "bfloat16"),
    ):
        changed: Mapping[str, Any] = {setting: value}
        yield f"lm.{section}.{setting}={value}", {section: replace(config, **changed)}
    yield "lm.quantise=int8", {"quantise": "int8"}
