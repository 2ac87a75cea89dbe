"""Relative buckets, the norm and attention, against hand-worked values and the library's own function."""

import inspect
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.language import attention as attention_module
from delrec_jax.language import fused_attention
from delrec_jax.language.attention import RelativeBias, attend_by_xla, relative_position_bucket
from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.fused_attention import attend_by_cudnn
from delrec_jax.language.t5 import T5, RMSNorm
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


def attention_inputs(dtype):
    generator = np.random.default_rng(0)
    q, k, v = (jnp.asarray(generator.normal(size=(3, 16, 2, 8)), dtype) for _ in range(3))
    bias = jnp.asarray(generator.normal(size=(1, 2, 16, 16)), jnp.float32)
    mask = jnp.arange(16)[None] < jnp.asarray([[16], [9], [1]])
    return q, k, v, bias, mask[:, None, None]


def test_attention_equals_the_library_function():
    """`jax.nn.dot_product_attention`, values and gradients, with bias and padding."""
    q, k, v, bias, mask = attention_inputs(jnp.float32)

    def library(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask, scale=1.0)

    def ours(q, k, v):
        return attend_by_xla(q, k, v, bias, mask)

    np.testing.assert_allclose(ours(q, k, v), library(q, k, v), atol=1e-5)
    assert np.abs(library(q, k, v) - library(q, k, v[:, ::-1])).max() > 0.1
    for argument in range(3):
        gradients = [
            jax.grad(lambda *a, f=f: (f(*a) ** 2).sum(), argument)(q, k, v) for f in (ours, library)
        ]
        np.testing.assert_allclose(*gradients, atol=1e-4)


def test_a_row_without_keys_is_finite():
    q, k, v, bias, _ = attention_inputs(jnp.float32)
    nothing = jnp.zeros((3, 1, 1, 16), bool)
    np.testing.assert_allclose(attend_by_xla(q, k, v, bias, nothing)[:, 0], v.mean(1), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("trained", [3, 4], ids=["frozen bias", "trained bias"])
def test_cudnn_equals_xla(trained):
    """Values where there is text, and gradients with respect to q, k, v and a bias that trains."""
    *inputs, mask = attention_inputs(jnp.bfloat16)

    def both(attend):
        def loss(*inputs):
            out = jnp.where(mask[:, 0, 0, :, None, None], attend(*inputs, mask), 0)
            return (out.astype(jnp.float32) ** 2).sum(), out

        return jax.jit(jax.grad(loss, range(trained), has_aux=True))

    fused = both(attend_by_cudnn)
    assert "cudnn" in fused.lower(*inputs).compile().as_text()
    found, expected = fused(*inputs), both(attend_by_xla)(*inputs)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
        assert np.abs(ours - theirs).max() < 3e-2 * max(1, np.abs(theirs).max())


@pytest.mark.gpu
def test_a_row_of_padding_is_finite_by_cudnn():
    q, k, v, bias, mask = attention_inputs(jnp.bfloat16)
    out = jax.jit(attend_by_cudnn)(q, k, v, bias, mask.at[1].set(False))
    assert np.isfinite(np.asarray(out, np.float32)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "flash"}, "attention is 'flash': use one of xla, cudnn"),
        ({"attention": "cudnn"}, "attention=cudnn computes in 16 bits: set {section}.dtype"),
        ({"dtype": "int8"}, "dtype is 'int8': use one of float32, bfloat16"),
        ({"dtype": "float16"}, "dtype is 'float16', in which .* overflow .*: use bfloat16"),
        ({"param_dtype": "f32"}, "param_dtype is 'f32'"),
        ({"precision": "tf32"}, "precision is 'tf32': use one of default, high, highest"),
        ({"remat": "True"}, "remat is 'True': use one of none, dots, full .full is what True was"),
    ],
)
@pytest.mark.parametrize(("section", "config"), [("lm.t5", T5Config), ("lm.bert", BertConfig)])
def test_settings_that_cannot_be_name_their_key(section, config, settings, message):
    with pytest.raises(UserError, match=f"^{section}." + message.format(section=section)):
        config(**settings)


def test_cudnn_refuses_a_width_of_heads():
    with pytest.raises(UserError, match=r"lm.t5.attention=cudnn .* this model's is 12: use 'xla'"):
        T5Config(attention="cudnn", dtype="bfloat16", d_kv=12)


@pytest.mark.parametrize("attention", ["xla", "cudnn"])
def test_the_flag_chooses_the_kernel_of_the_encoder_alone(attention, monkeypatch):
    """With cuDNN replaced by a spy: it meets the encoder's self-attention and nothing of the decoder."""
    met = []

    def spy(q, k, v, bias, mask):
        met.append(q.shape)
        return attend_by_xla(q, k, v, bias, mask)

    monkeypatch.setattr(attention_module, "attend_by_cudnn", spy)
    config = T5Config(
        vocab_size=20,
        d_model=8,
        d_kv=8,
        d_ff=8,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=2,
        dtype="bfloat16",
        attention=attention,
    )
    ids, answer = jnp.ones((2, 6), jnp.int32), jnp.ones((2, 3), jnp.int32)
    params = jax.eval_shape(T5(config).init, jax.random.key(0), ids, answer)
    met.clear()
    jax.eval_shape(T5(config).apply, params, ids, answer)
    assert met == ([(2, 6, 2, 8)] * 2 if attention == "cudnn" else [])


@pytest.mark.parametrize(
    ("queries", "keys", "fit"), [(4, 6, True), (3, 4, False), (4, 3, False), (5, 5, False)]
)
def test_cudnn_fits_even_numbers_alone(queries, keys, fit):
    assert fused_attention.fits(queries, keys) is fit


def test_cudnn_is_told_the_lengths_of_texts(monkeypatch):
    q, k, v, bias, mask = attention_inputs(jnp.bfloat16)
    told = []
    monkeypatch.setattr(fused_attention, "_attend", lambda *given: told.append(given))
    mask = mask.at[2].set(False)  # nothing but padding: its first token is attended to
    attend_by_cudnn(q, k, v, bias, mask)
    attend_by_cudnn(q[:, :4], k, v, None, mask, padded_queries=False)
    (*_, narrow, own), (*_, none, cross) = told
    assert narrow.dtype == jnp.bfloat16 and none is None
    assert [lengths.tolist() for lengths in own] == [[16, 9, 1]] * 2
    assert [lengths.tolist() for lengths in cross] == [[4, 4, 4], [16, 9, 1]]


@pytest.mark.parametrize("trained", [False, True])
def test_what_cudnn_is_asked_for(monkeypatch, trained):
    q, k, v, bias, _ = attention_inputs(jnp.bfloat16)
    lengths, asked = (jnp.full(3, 16), jnp.full(3, 9)), {}

    def beneath(*arguments):
        asked.update(zip(fused_attention._KNOWN, arguments, strict=True))

    def public(*arguments, **options):
        asked.update(options, bias=arguments[3])

    library = fused_attention.jax_cudnn
    beneath.__signature__ = inspect.signature(library._dot_product_attention)
    monkeypatch.setattr(library, "_dot_product_attention", beneath)
    monkeypatch.setattr(library, "check_cudnn_version", lambda: 91200)
    monkeypatch.setattr(jax.nn, "dot_product_attention", public)
    fused_attention._cudnn(q, k, v, bias, lengths, bias_gradient=trained)
    assert asked["scale"] == 1.0 and asked["bias"] is bias
    if trained:
        assert asked["implementation"] == "cudnn" and asked["query_seq_lengths"] is lengths[0]
        return
    assert asked["q_seqlen"] is lengths[0] and asked["kv_seqlen"] is lengths[1]
    assert asked["dropout_rate"] == 0 and asked["return_residual"] is False
    assert asked["variadic_args"] == (True, False)
    assert asked["q_offsets"].size == asked["page_table_v"].size == 0


def test_queries_of_long_answers_are_no_padded_text(monkeypatch):
    met = []

    def spy(q, k, v, bias, mask, *, padded_queries=True):
        met.append((q.shape[1], k.shape[1], bias is None, padded_queries))
        return attend_by_xla(q, k, v, bias, mask)

    monkeypatch.setattr(attention_module, "attend_by_cudnn", spy)
    sizes = {"vocab_size": 20, "d_model": 8, "d_kv": 8, "d_ff": 8, "num_heads": 2}
    layers = {"num_layers": 1, "num_decoder_layers": 1}
    module = T5(T5Config(**sizes, **layers, dtype="bfloat16", attention="cudnn"))
    ids, answer = jnp.ones((2, 6), jnp.int32), jnp.ones((2, 10), jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), ids, answer)
    met.clear()
    jax.eval_shape(module.apply, params, ids, answer)
    assert met == [(6, 6, False, True), (10, 6, True, False)]


def test_cudnn_takes_heads_up_to_256():
    taken = {"attention": "cudnn", "dtype": "bfloat16"}
    assert T5Config(**taken, d_kv=256).d_kv == 256
    for width in (257, 264):
        with pytest.raises(UserError, match=f"this model's is {width}: use 'xla'"):
            T5Config(**taken, d_kv=width)
