"""A base in 8 bits: the numbers by hand, models against their dequantized selves, gradients, and what is kept for them."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from tiny_bert import TINY as BERT
from tiny_bert import visible_params as visible_bert
from tiny_t5 import GATED, V10, visible_params

from delrec_jax.language.adalora import init_adapters, merge
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.bert_model import BertModel
from delrec_jax.language.layer_stacking import stack_layers
from delrec_jax.language.quantised import dequantised, quantise, quantised_shapes, scaled_product
from delrec_jax.language.t5_model import T5Model
from delrec_jax.language.t5_shapes import FLAN_T5

ADAPTERS = AdaLoRAConfig(init_rank=2, target_rank=1, targets=("*/*",), dropout=0.0)
IDS = np.array([[5, 9, 39, 7, 1, 6], [3, 8, 39, 1, 0, 0]], np.int32)


def in_8_bits(params, closed=("lm_head",)):
    """The parameters quantized on the first device; the originals stay usable."""
    copy = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    home = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = quantised_shapes(copy, closed)
    return quantise(copy, closed, jax.tree.map(lambda leaf: home, shapes))


def case(name):
    """A model with adapters, and its parameters."""
    if name == "bert":
        return BertModel(replace(BERT, adapters=ADAPTERS)), visible_bert()
    config = replace(V10 if name == "v10" else GATED, adapters=ADAPTERS)
    params = visible_params(config)
    if name == "stacked":
        return T5Model(replace(config, scan_layers=True)), stack_layers(params)
    return T5Model(config), params


CASES = ("gated", "v10", "stacked", "bert")


def answers(model, params, adapters=None):
    """States of the encoder, and of the decoder at the MASK if there is one."""
    return _answers(params, adapters, model=model)


@partial(jax.jit, static_argnames="model")
def _answers(params, adapters, model):
    if isinstance(model, T5Model):
        return model.answers(params, IDS, np.full((2, 1), 39), adapters=adapters)
    return model.encode(params, IDS, adapters=adapters)[0]


def test_kernels_and_scales_by_hand():
    kernel = np.array([[1.27, -0.5, 0], [-0.635, 0.25, 0], [0.014, 0.0013, 0]], np.float32)
    table = np.ones((2, 3), np.float32)
    found = in_8_bits(
        {"q": {"kernel": kernel}, "lm_head": {"kernel": kernel}, "shared": {"embedding": table}}
    )
    np.testing.assert_array_equal(
        found["q"]["kernel"], np.array([[127, -127, 0], [-64, 64, 0], [1, 0, 0]], np.int8)
    )
    np.testing.assert_allclose(found["q"]["scale"], [0.01, 0.5 / 127, 1e-30], rtol=1e-6)
    assert found["lm_head"] == {"kernel": pytest.approx(kernel)}
    assert found["shared"]["embedding"].dtype == np.float32
    plain = dequantised(found, np.float32)
    assert set(plain["q"]) == {"kernel"}
    assert (np.abs(plain["q"]["kernel"] - kernel) <= [0.005, 0.5 / 254, 0]).all()


@pytest.mark.parametrize("name", CASES)
def test_a_quantized_model_computes_what_its_dequantized_weights_do(name):
    model, params = case(name)
    held = in_8_bits(params, model.closed)
    assert jax.tree.map(jnp.shape, held) == jax.tree.map(
        jnp.shape, quantised_shapes(model.param_shapes(), model.closed)
    )
    int8 = {p[:-1] for p, leaf in traverse_util.flatten_dict(held).items() if leaf.dtype == "int8"}
    kernels = {p[:-1] for p in traverse_util.flatten_dict(params) if p[-1] == "kernel"}
    assert int8 == kernels - {("lm_head",)}
    ours = answers(model, held)
    np.testing.assert_allclose(
        ours, answers(model, dequantised(held, np.float32)), rtol=1e-4, atol=1e-4
    )
    error = np.abs(ours - answers(model, params)).max() / np.abs(ours).max()
    assert 1e-5 < error < 0.1


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_adapters_are_those_of_the_dequantized_weights(name):
    model, params = case(name)
    held = in_8_bits(params, model.closed)
    adapters = init_adapters(held, ADAPTERS, jax.random.key(1), closed=model.closed)
    adapters = jax.tree.map(lambda leaf: leaf + 0.1, adapters)
    wanted = jnp.asarray(np.random.default_rng(2).normal(size=answers(model, params).shape))

    @jax.jit
    @jax.grad
    def gradients(adapters, params):
        return (answers(model, params, adapters) * wanted).sum()

    ours = gradients(adapters, held)
    plain = gradients(adapters, dequantised(held, np.float32))
    for path, leaf in traverse_util.flatten_dict(ours).items():
        expected = traverse_util.flatten_dict(plain)[path]
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(ours)) > 0.1


def test_the_backward_pass_keeps_no_wider_copy_of_a_kernel():
    x, kernel = jnp.ones((3, 5), jnp.bfloat16), jnp.ones((5, 7), jnp.int8)
    _, back = jax.vjp(lambda x: scaled_product(x, kernel, jnp.full(7, 0.5)), x)
    kept = {(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(back)}
    assert ((5, 7), "int8") in kept
    assert not [dtype for shape, dtype in kept if shape == (5, 7) and dtype != "int8"]
    (gradient,) = back(jnp.ones((3, 7), jnp.bfloat16))
    assert gradient.dtype == jnp.bfloat16 and (gradient == 3.5).all()


def test_originals_are_freed_and_updates_need_plain_weights():
    params = {"q": {"kernel": jnp.ones((4, 4))}}
    home = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    original = params["q"]["kernel"]
    held = quantise(params, (), {"q": {"kernel": home, "scale": home}})
    assert original.is_deleted()
    adapters = init_adapters(held, replace(ADAPTERS, targets=("q",)), jax.random.key(0))
    with pytest.raises(ValueError, match="q is quantized"):
        merge(held, adapters, ADAPTERS)
    merge(dequantised(held, np.float32), adapters, ADAPTERS)


def test_the_scale_of_a_norm_is_no_scale_of_a_kernel():
    params = {"norm": {"scale": np.full(4, 3.0)}, "q": {"kernel": np.eye(4)}}
    found = dequantised(params, np.float32)
    np.testing.assert_array_equal(found["norm"]["scale"], params["norm"]["scale"])


def test_flan_t5_xl_takes_about_half_of_its_bytes_in_16_bits():
    config = replace(FLAN_T5["google/flan-t5-xl"], param_dtype="bfloat16", scan_layers=True)
    model = T5Model(config)

    def size(shapes):
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))

    plain = size(model.param_shapes())
    held = size(quantised_shapes(model.param_shapes(), model.closed))
    # Table and head stay in 16 bits: 2 x 32128 x 2048 of 2.85e9 weights.
    assert held / plain == pytest.approx(0.5 + 0.5 * 2 * 32128 * 2048 / 2.85e9, abs=0.003)
