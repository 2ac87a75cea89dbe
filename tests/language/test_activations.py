"""Softmax and GELU against `jax.nn` and finite differences, and what they keep for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.language.activations import gated_gelu, gelu, softmax

RNG = np.random.default_rng(0)
X, Y, WANTED = (jnp.asarray(RNG.normal(size=(3, 7)) * 2, jnp.float32) for _ in range(3))
CASES = {
    "softmax": (softmax, lambda x: jax.nn.softmax(x, axis=-1), (X,)),
    "gelu": (lambda x: gelu(x, False), lambda x: jax.nn.gelu(x, approximate=False), (X,)),
    "gelu by tanh": (lambda x: gelu(x, True), lambda x: jax.nn.gelu(x, approximate=True), (X,)),
    "gated": (gated_gelu, lambda x, y: jax.nn.gelu(x, approximate=True) * y, (X, Y)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_jax(name):
    ours, theirs, inputs = CASES[name]
    np.testing.assert_array_equal(ours(*inputs), theirs(*inputs))
    for place in range(len(inputs)):
        found, expected = (
            jax.grad(lambda *x, f=f: (f(*x) * WANTED).sum(), place)(*inputs) for f in (ours, theirs)
        )
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def large(function, *inputs):
    """Number of arrays of X's shape that the backward pass needs."""
    _, back = jax.vjp(function, *inputs)
    return len({id(leaf) for leaf in jax.tree.leaves(back) if leaf.shape == X.shape})


@pytest.mark.parametrize(("name", "kept"), [("gelu", 1), ("gelu by tanh", 1), ("gated", 2)])
def test_gelu_keeps_its_inputs_alone(name, kept):
    ours, theirs, inputs = CASES[name]
    assert large(ours, *inputs) == kept < large(theirs, *inputs)


def test_softmax_keeps_its_result_alone_which_a_product_keeps_anyway():
    values = jnp.ones((7, 2))
    assert large(lambda x, v: softmax(x) @ v, X, values) == 1
    assert large(lambda x, v: jax.nn.softmax(x) @ v, X, values) == 2


@pytest.mark.parametrize("name", ["gelu", "gated"])
def test_types_are_kept(name):
    ours, _, inputs = CASES[name]
    inputs = [x.astype(jnp.bfloat16) for x in inputs]
    found = jax.grad(lambda x: ours(x, *inputs[1:]).astype(jnp.float32).sum())(inputs[0])
    assert ours(*inputs).dtype == found.dtype == jnp.bfloat16
