"""The preference parser: pooling by hand, padding, adapters, dropout; and the encoding it shares with answers."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_answers import answer_states, encoded_texts
from delrec_jax.language.t5_model import T5Model
from delrec_jax.p2rec.preference_parser import PreferenceParser, init_projection

TEXTS = np.array([[5, 9, 12, 7, 1, 33], [3, 8, 30, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
LORA = AdaLoRAConfig(targets=("encoder/*/*/q",), init_rank=3, target_rank=2, dropout=0.5)


def pad(ids, length):
    return np.pad(ids, ((0, 0), (0, length - ids.shape[1])))


def pooled(config, params, ids, **options):
    parser = PreferenceParser(T5Model(config))
    return np.asarray(jax.jit(partial(parser.pooled, **options))(params, jnp.asarray(ids)))


@pytest.fixture(scope="module")
def adapted(gated):
    config, params = gated
    adapters = init_adapters(params, LORA, jax.random.key(0))
    adapters = jax.tree.map(lambda leaf: leaf + 0.3, adapters)  # E starts at zero
    return replace(config, adapters=LORA), params, adapters


def test_pooled_is_the_mean_over_words_alone(either):
    config, params = either
    hidden, mask = encoded_texts(T5(config), params, jnp.asarray(TEXTS))
    np.testing.assert_array_equal(mask, TEXTS != 0)
    hidden, found = np.asarray(hidden), pooled(config, params, TEXTS)
    np.testing.assert_allclose(found[0], hidden[0].sum(0) / 6, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], hidden[1, :3].sum(0) / 3, rtol=1e-5, atol=1e-6)
    assert np.abs(found[:2]).max() > 0.1 and np.abs(hidden[1, 3:]).max() > 0.1
    # A row that only fills the batch.
    np.testing.assert_array_equal(found[2], 0)


def test_only_what_counts_is_pooled_but_everything_is_read(either):
    config, params = either
    counted = np.array([[0, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0]])
    hidden = np.asarray(encoded_texts(T5(config), params, jnp.asarray(TEXTS))[0])
    parser = PreferenceParser(T5Model(config))
    found = np.asarray(jax.jit(parser.pooled)(params, jnp.asarray(TEXTS), jnp.asarray(counted)))
    np.testing.assert_allclose(found[0], hidden[0, 1:3].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], hidden[1, 0], rtol=1e-5, atol=1e-6)  # padding never counts
    np.testing.assert_array_equal(found[2], 0)


def test_padding_to_another_bucket_changes_nothing(either):
    config, params = either
    short, long = pooled(config, params, TEXTS), pooled(config, params, pad(TEXTS, 16))
    np.testing.assert_allclose(long, short, atol=1e-6)
    alone = pooled(config, params, TEXTS[1:2, :3])
    np.testing.assert_allclose(alone[0], short[1], atol=1e-6)


def test_pooling_is_in_float32_whatever_the_model_computes_in(gated):
    config, params = gated
    half = replace(config, dtype="bfloat16")
    hidden, _ = encoded_texts(T5(half), params, jnp.asarray(TEXTS))
    assert hidden.dtype == jnp.bfloat16
    with jax.disable_jit():
        found = PreferenceParser(T5Model(half)).pooled(params, jnp.asarray(TEXTS))
    expected = np.asarray(hidden[0], np.float64).mean(0)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)


def test_logits_are_one_linear_map_of_the_pooled(gated):
    config, params = gated
    generator = np.random.default_rng(0)
    projection = {"kernel": generator.normal(size=(12, 4)), "bias": np.array([1.0, 0, -2, 3])}
    projection = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), projection)
    logits = PreferenceParser(T5Model(config)).logits(params, projection, jnp.asarray(TEXTS))
    expected = pooled(config, params, TEXTS).astype(np.float64) @ projection["kernel"]
    np.testing.assert_allclose(logits, expected + np.array([1, 0, -2, 3]), rtol=1e-4, atol=1e-5)
    assert logits.dtype == jnp.float32 and logits.shape == (3, 4)


def test_a_new_projection_prefers_nothing_much():
    projection = init_projection(400, 50, jax.random.key(3))
    assert jax.tree.map(jnp.shape, projection) == {"kernel": (400, 50), "bias": (50,)}
    assert {leaf.dtype for leaf in jax.tree.leaves(projection)} == {jnp.dtype("float32")}
    assert not projection["bias"].any()
    assert projection["kernel"].std() == pytest.approx(0.1 / 20, rel=0.05)
    unit = jax.random.normal(jax.random.key(4), (64, 400))
    shares = jax.nn.softmax(unit @ projection["kernel"])
    assert 1.0 < 50 * shares.max() < 2.0
    other = init_projection(400, 50, jax.random.key(5))
    assert (other["kernel"] != projection["kernel"]).any()


def test_adapters_and_their_dropout_reach_the_pool_and_the_logits(adapted):
    config, params, adapters = adapted
    parser, ids = PreferenceParser(T5Model(config)), jnp.asarray(TEXTS)
    projection = init_projection(12, 4, jax.random.key(1))
    plain = pooled(config, params, TEXTS)
    tuned = pooled(config, params, TEXTS, adapters=adapters)
    dropped = [
        pooled(config, params, TEXTS, adapters=adapters, dropout_key=jax.random.key(seed))
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    for one, other in ((plain, tuned), (tuned, dropped[0]), (dropped[0], dropped[2])):
        assert np.abs(one - other).max() > 1e-3
    logits = parser.logits(
        params, projection, ids, adapters=adapters, dropout_key=jax.random.key(0)
    )
    expected = dropped[0] @ projection["kernel"]
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-5)


def test_every_adapter_of_the_encoder_and_the_projection_learn(adapted):
    config, params, adapters = adapted
    parser, ids = PreferenceParser(T5Model(config)), jnp.asarray(TEXTS[:2])

    def loss(trained):
        logits = parser.logits(params, trained["projection"], ids, adapters=trained["adapters"])
        return (jax.nn.softmax(logits)[:, 0] ** 2).sum()

    trained = {"adapters": adapters, "projection": init_projection(12, 4, jax.random.key(1))}
    for path, slope in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(trained)):
        assert np.isfinite(slope).all() and np.abs(slope).max() > 0, path


def test_a_text_with_soft_slots_has_no_preference(gated):
    config, params = gated
    slotted = np.where(TEXTS == 12, config.vocab_size, TEXTS)
    assert np.isnan(pooled(config, params, slotted)[0]).all()


def test_answers_read_the_encoding_of_encoded_texts_with_its_own_dropout(adapted):
    config, params, adapters = adapted
    config = replace(config, dropout_rate=0.2)
    module, ids = T5(config), jnp.asarray(TEXTS)
    answers = jnp.asarray([[[0, 39]]] * 3)
    key = jax.random.key(7)
    for dropout_key in (None, key):
        found = answer_states(
            module, params, ids, answers, adapters=adapters, dropout_key=dropout_key
        )
        encoder_key, decoder_key = (None, None) if dropout_key is None else jax.random.split(key)
        encoded, mask = encoded_texts(
            module, params, ids, adapters=adapters, dropout_key=encoder_key
        )
        expected = module.apply(
            {"params": params, "adapters": adapters},
            answers,
            encoded,
            mask,
            dropout_key is None,
            method="decode",
            rngs={} if dropout_key is None else {"dropout": decoder_key},
        )
        np.testing.assert_array_equal(found, expected)
