"""A frozen base in 8 bits: the kernel of a projection as int8 with one float32 scale per output channel.

    W[i, j] ~ scale[j] * q[i, j],    scale[j] = max_i |W[i, j]| / 127,    q = round(W / scale)

Activations, norms, biases, token tables and heads keep their types, and so do prompts and adapters, which train through the
quantized base. A scale is a leaf next to its kernel, and a projection that finds one multiplies by it: which weights are
quantized is a matter of the tree, as with adapters. Rounding to nearest with symmetric ranges per channel is "absmax" in
Dettmers et al., "LLM.int8()", NeurIPS 2022; QLoRA (NeurIPS 2023) trains adapters through such a base.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, Int8

KINDS = ("", "int8")
"""Values of `lm.quantise`; empty = none."""

_LARGEST = 127
_TINY = 1e-30  # the scale of a channel that is 0 everywhere must not be 0

Tree = dict[str, Any]


@jax.custom_vjp
def scaled_product(
    x: Float[Array, "... D"], kernel: Int8[Array, "D F"], scale: Float[Array, " F"]
) -> Float[Array, "... F"]:
    """Returns x W in the type of x, with sums and scales in float32.

    Only x has a gradient. The backward pass reads the kernel again: plain differentiation would keep a copy of it in the type
    of x from the forward pass on, which takes more memory than quantization saves.
    """
    wide = jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)
    return (wide * scale).astype(x.dtype)


def _forward(x: Any, kernel: Any, scale: Any) -> tuple[Any, Any]:
    return scaled_product(x, kernel, scale), (kernel, scale)


def _backward(kept: Any, gradient: Float[Array, "... F"]) -> tuple[Any, None, None]:
    kernel, scale = kept
    scaled = (gradient * scale).astype(gradient.dtype)
    return jnp.matmul(scaled, kernel.astype(gradient.dtype).T), None, None


scaled_product.defvjp(_forward, _backward)


def quantise(params: Tree, closed: Sequence[str], shardings: Tree) -> Tree:
    """Returns the parameters with every kernel in 8 bits; frees each original as soon as it is converted.

    Args:
      params: a model's parameters on the devices, which must not be used afterwards.
      closed: top-level projections that are left as they are (`LanguageModel.closed`): item scores read them directly.
      shardings: where the result is placed, in a tree like `quantised_shapes`.
    """
    flat, homes = traverse_util.flatten_dict(params), traverse_util.flatten_dict(shardings)
    for path in _kernels(flat, closed):
        kernel, beside = flat.pop(path), (*path[:-1], "scale")
        convert = jax.jit(_in_8_bits, out_shardings=(homes[path], homes[beside]))
        flat[path], flat[beside] = jax.block_until_ready(convert(kernel))
        kernel.delete()
    tree: Tree = traverse_util.unflatten_dict(flat)
    return tree


def quantised_shapes(shapes: Tree, closed: Sequence[str]) -> Tree:
    """Returns the shapes of what `quantise` makes of parameters of these shapes."""
    flat = dict(traverse_util.flatten_dict(shapes))
    for path in _kernels(flat, closed):
        flat[path], flat[(*path[:-1], "scale")] = jax.eval_shape(_in_8_bits, flat[path])
    tree: Tree = traverse_util.unflatten_dict(flat)
    return tree


def _kernels(flat: Tree, closed: Sequence[str]) -> list[tuple[str, ...]]:
    return [path for path in flat if path[-1] == "kernel" and path[0] not in closed]


def dequantised(params: Tree, dtype: Any) -> Tree:
    """Returns plain parameters that compute the same, their kernels in this type; others are returned as they are."""
    flat = dict(traverse_util.flatten_dict(params))
    for path in [path for path in flat if path[-1] == "scale"]:
        kernel = (*path[:-1], "kernel")
        if kernel not in flat:  # a norm's
            continue
        scale = flat.pop(path)
        flat[kernel] = (flat[kernel] * scale[..., None, :]).astype(dtype)
    tree: Tree = traverse_util.unflatten_dict(flat)
    return tree


def _in_8_bits(
    kernel: Float[Array | np.ndarray, "*L D F"],
) -> tuple[Int8[Array, "*L D F"], Float[Array, "*L F"]]:
    """Returns the kernel and its scales; a leading axis of layers is kept."""
    wide = jnp.asarray(kernel, jnp.float32)
    scale = jnp.maximum(jnp.abs(wide).max(axis=-2) / _LARGEST, _TINY)
    rounded = jnp.round(wide / scale[..., None, :])
    return rounded.astype(jnp.int8), scale
