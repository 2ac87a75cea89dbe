"""Attention by cuDNN's fused kernel, which never holds the weights [B, H, Tq, Tk] (NVIDIA GPUs, bfloat16).

Padding is passed as lengths, and so the bias stays that of one row of the batch: JAX would add a mask to it, for [B, H, Tq, Tk]
again. Nor is a gradient of the bias written where nobody asks for one, as while the base is frozen. JAX's own derivative always
has one written; its primitives beneath can be told not to, but are not public: should they move, JAX's derivative is used.

On a TPU there is no such kernel for T5 in JAX: `pallas.ops.tpu.flash_attention` takes a bias, but only [B, H, Tq, Tk], and its
backward pass always writes a gradient of that size; splash attention takes none. Attention by XLA holds no more than these.
"""

import inspect
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as jax_cudnn
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.logical_axes import constrain

FORWARD = "dot_product_attention_fwd_wrapper"
"""The primitive's name, by which a policy of recomputing can keep its results."""

_SEED = 42  # without meaning: there is no dropout
_KNOWN = (
    *("query", "key", "value", "bias", "q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets"),
    *(
        "page_table_k",
        "page_table_v",
        "scale",
        "seed",
        "dropout_rate",
        "variadic_args",
        "mask_type",
    ),
    *("layout", "sliding_window_length", "cudnn_version", "return_residual"),
)


def fits(queries: int, keys: int) -> bool:
    """Whether the kernel has a backward pass for so many tokens: for even numbers."""
    return queries % 2 == 0 and keys % 2 == 0


def attend_by_cudnn(
    q: Float[Array, "B Tq H K"],
    k: Float[Array, "B Tk H K"],
    v: Float[Array, "B Tk H K"],
    bias: Float[Array, "1 H Tq Tk"] | None,
    mask: Bool[Array, "B 1 1 Tk"],
    *,
    padded_queries: bool = True,
) -> Float[Array, "B Tq H K"]:
    """Returns what `attention.attend_by_xla` does, for texts that are padded on the right and that the kernel `fits`.

    Args:
      q, k, v: queries, keys and values, in 16 bits.
      bias: added to the logits.
      mask: False at padding, which must come after a text.
      padded_queries: whether the queries are the same tokens as the keys (self-attention); at padding the result is then
        without meaning.
    """
    # A row of nothing but padding attends to its first token: a softmax over no keys is not defined.
    keys = jnp.maximum(mask[:, 0, 0].sum(-1, dtype=jnp.int32), 1)  # [B]
    queries = keys if padded_queries else jnp.full_like(keys, q.shape[1])
    queries, keys = constrain(queries, "batch"), constrain(keys, "batch")
    if bias is not None:
        bias = constrain(bias.astype(q.dtype), None, "heads", None, None)
    return _attend(q, k, v, bias, (queries, keys))


@jax.custom_vjp
def _attend(q: Array, k: Array, v: Array, bias: Array | None, lengths: Any) -> Array:
    return _cudnn(q, k, v, bias, lengths, bias_gradient=False)


def _forward(q: Any, k: Any, v: Any, bias: Any, lengths: Any) -> tuple[Array, Any]:
    """The result, and the function from its gradient to those of q, k, v and, if it is wanted, the bias."""
    wanted = bias is not None and bias.perturbed
    values = jax.tree.map(
        lambda given: given.value,
        (q, k, v, bias, lengths),
        is_leaf=lambda leaf: isinstance(leaf, CustomVJPPrimal),
    )
    attend = partial(_cudnn, lengths=values[4], bias_gradient=wanted)
    out, pull = jax.vjp(attend, *values[:4])
    return out, pull


def _backward(pull: Any, gradient: Any) -> tuple[Any, ...]:
    if isinstance(gradient, SymbolicZero):
        return (None,) * 5
    return (*pull(gradient), None)


_attend.defvjp(_forward, _backward, symbolic_zeros=True)


def _cudnn(
    q: Float[Array, "B Tq H K"],
    k: Float[Array, "B Tk H K"],
    v: Float[Array, "B Tk H K"],
    bias: Float[Array, "1 H Tq Tk"] | None,
    lengths: tuple[Int[Array, "B"], Int[Array, "B"]],
    *,
    bias_gradient: bool,
) -> Float[Array, "B Tq H K"]:
    """Calls the kernel; without `bias_gradient`, its backward pass has no result for the bias."""
    if bias_gradient or bias is None or not _has_known_parts():
        queries, keys = lengths
        return jax.nn.dot_product_attention(
            *(q, k, v, bias),
            scale=1.0,
            query_seq_lengths=queries,
            key_value_seq_lengths=keys,
            implementation="cudnn",
        )
    unused = jnp.zeros(0, q.dtype)
    layout, version = jax_cudnn.AttentionLayout.BTNH.value, jax_cudnn.check_cudnn_version()
    shape = (1.0, _SEED, 0.0, (True, False), jax_cudnn.MaskType.PADDING, layout, None)
    operands = (q, k, v, bias, *lengths, *[unused] * 4)
    found: Array = jax_cudnn._dot_product_attention(*operands, *shape, version, False)
    return found


def _has_known_parts() -> bool:
    """Whether JAX's function beneath the public one is the one that this file was written for."""
    found = getattr(jax_cudnn, "_dot_product_attention", None)
    return found is not None and tuple(inspect.signature(found).parameters) == _KNOWN
