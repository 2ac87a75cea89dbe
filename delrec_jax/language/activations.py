"""Softmax and GELU whose backward passes need little from the forward pass.

The numbers are those of `jax.nn`; what differs is what is kept until the backward pass. Plain differentiation keeps several
arrays of the size of the attention weights, or of the feed-forward's hidden values: what an exponential, a quotient and a
hyperbolic tangent each would like to see again. Here softmax keeps its result, and GELU its input.
"""

from functools import partial
from math import pi, sqrt
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ROOT, _CUBIC = sqrt(2 / pi), 0.044715  # of the approximation by tanh


@jax.custom_jvp
def softmax(logits: Float[Array, "... K"]) -> Float[Array, "... K"]:
    """Returns the softmax over the last axis; JAX's own keeps as little only with `jax_softmax_custom_jvp`."""
    return jax.nn.softmax(logits, axis=-1)


@softmax.defjvp
def _softmax_tangent(primals: Any, tangents: Any) -> tuple[Array, Array]:
    weights, change = softmax(*primals), tangents[0]
    return weights, weights * (change - (weights * change).sum(-1, keepdims=True))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def gelu(x: Float[Array, "..."], approximate: bool) -> Float[Array, "..."]:
    """Returns x times the normal distribution function of x, exactly or by tanh."""
    return jax.nn.gelu(x, approximate=approximate)


def _gelu_forward(x: Array, approximate: bool) -> tuple[Array, Array]:
    return gelu(x, approximate), x


def _gelu_backward(approximate: bool, x: Array, gradient: Array) -> tuple[Array]:
    _, slope = _below_and_slope(x.astype(jnp.float32), approximate)
    return ((gradient * slope).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@jax.custom_vjp
def gated_gelu(gate: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns gelu(gate) x, GELU by tanh (T5 v1.1 and Flan)."""
    return jax.nn.gelu(gate, approximate=True) * x


def _gated_forward(gate: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
    return gated_gelu(gate, x), (gate, x)


def _gated_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    gate, x = kept
    below, slope = _below_and_slope(gate.astype(jnp.float32), approximate=True)
    # Not gelu(gate) as such: the compiler would take it from the forward pass, and keep it until here.
    through_x = gradient * gate * below
    return (gradient * x * slope).astype(gate.dtype), through_x.astype(x.dtype)


gated_gelu.defvjp(_gated_forward, _gated_backward)


def _below_and_slope(x: Float[Array, "..."], approximate: bool) -> tuple[Array, Array]:
    """Returns the normal distribution function of x, and the derivative of x times it."""
    if approximate:
        tanh = jnp.tanh(_ROOT * (x + _CUBIC * x**3))
        below = 0.5 * (1 + tanh)
        density = 0.5 * (1 - tanh**2) * _ROOT * (1 + 3 * _CUBIC * x**2)
    else:
        below = 0.5 * (1 + jax.lax.erf(x / sqrt(2)))
        density = jnp.exp(-0.5 * x**2) / sqrt(2 * pi)
    return below, below + x * density
