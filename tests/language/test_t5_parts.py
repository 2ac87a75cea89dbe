"""Relative buckets and the norm, against values worked out by hand from the paper's formulas."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.language.attention import RelativeBias, relative_position_bucket
from delrec_jax.language.t5 import RMSNorm
from delrec_jax.language.t5_config import T5Config

# Encoder: 16 buckets a side, 8 exact, then 8 + floor(2 log2(d / 8)) up to 15; keys after the
# query (positive distances) take the upper 16.
ENCODER = {
    0: 0, -1: 1, -7: 7, -8: 8, -11: 8, -12: 9, -16: 10, -22: 10, -23: 11, -32: 12, -64: 14,
    -90: 14, -91: 15, -127: 15, -128: 15, -5000: 15,
    1: 17, 7: 23, 8: 24, 11: 24, 12: 25, 16: 26, 23: 27, 64: 30, 91: 31, 5000: 31,
}  # fmt: skip
# Decoder: no future, 16 exact, then 16 + floor(16/3 log2(d / 16)) up to 31.
DECODER = {
    0: 0, 1: 0, 300: 0, -1: 1, -15: 15, -16: 16, -18: 16, -19: 17, -32: 21, -64: 26, -112: 30,
    -128: 31, -5000: 31,
}  # fmt: skip


@pytest.mark.parametrize(("table", "bidirectional"), [(ENCODER, True), (DECODER, False)])
def test_buckets_by_hand(table, bidirectional):
    buckets = relative_position_bucket(
        jnp.asarray(list(table)), bidirectional=bidirectional, num_buckets=32, max_distance=128
    )
    assert dict(zip(table, buckets.tolist(), strict=True)) == table


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_fill_their_range_and_never_shrink_with_distance(bidirectional):
    past = -np.arange(400)
    buckets = np.asarray(
        relative_position_bucket(
            jnp.asarray(past), bidirectional=bidirectional, num_buckets=32, max_distance=128
        )
    )
    assert (np.diff(buckets) >= 0).all()
    assert sorted(set(buckets.tolist())) == list(range(16 if bidirectional else 32))


def test_relative_bias_reads_key_minus_query():
    config = T5Config(
        d_model=4, num_heads=2, relative_attention_num_buckets=8, relative_attention_max_distance=16
    )
    module = RelativeBias(config, bidirectional=True)
    table = jnp.arange(16.0).reshape(8, 2)
    bias = module.apply({"params": {"embedding": table}}, 4)
    # Rows are queries, columns keys: distances -3..3; 4 buckets a side, 2 of them exact.
    bucket = {-3: 2, -2: 2, -1: 1, 0: 0, 1: 4 + 1, 2: 4 + 2, 3: 4 + 2}
    buckets = np.array([[bucket[key - query] for key in range(4)] for query in range(4)])
    assert bias.shape == (1, 2, 4, 4)
    np.testing.assert_array_equal(bias[0, 0], table[buckets, 0])
    np.testing.assert_array_equal(bias[0, 1], table[buckets, 1])


def test_rms_norm_by_hand():
    x = jnp.asarray([[[3.0, 4.0], [-6.0, 8.0]]])  # root mean squares 5 / sqrt(2) and 10 / sqrt(2)
    config = T5Config(d_model=2)
    y = RMSNorm(config).apply({"params": {"weight": jnp.asarray([2.0, 0.5])}}, x)
    root = np.sqrt(2)
    expected = [[[1.2 * root, 0.4 * root], [-1.2 * root, 0.4 * root]]]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_rms_norm_keeps_the_mean_and_uses_epsilon():
    config = T5Config(d_model=2, layer_norm_epsilon=0.75)
    weight = {"params": {"weight": jnp.ones(2)}}
    y = RMSNorm(config).apply(weight, jnp.asarray([[[0.5, 0.5]]]))
    np.testing.assert_allclose(y, [[[0.5, 0.5]]], rtol=1e-6)  # 0.5 / sqrt(0.25 + 0.75)


def test_rms_norm_computes_in_float32_and_returns_the_compute_type():
    config = replace(T5Config(d_model=512), dtype="bfloat16")
    x = 1 + 0.5 * jax.random.normal(jax.random.key(0), (1, 1, 512))
    low = x.astype(jnp.bfloat16)
    y = RMSNorm(config).apply({"params": {"weight": jnp.ones(512)}}, low)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(low, np.float64)
    exact /= np.sqrt((exact**2).mean() + 1e-6)
    np.testing.assert_array_equal(y, exact.astype(np.float32).astype(jnp.bfloat16))


def test_an_unknown_feed_forward_is_named():
    with pytest.raises(UserError, match=r"lm.t5.feed_forward_proj is 'swish'.*'gated-gelu'"):
        T5Config(feed_forward_proj="swish")
