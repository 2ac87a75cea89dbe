import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from delrec_jax.errors import UserError
from delrec_jax.teachers import losses
from delrec_jax.teachers.losses import LossConfig, next_item_loss

ITEMS, WIDTH = 13, 5


@pytest.fixture(scope="module")
def case():
    keys = jax.random.split(jax.random.key(0), 3)
    states = jax.random.normal(keys[0], (3, 4, WIDTH))
    table = jax.random.normal(keys[1], (ITEMS, WIDTH))
    labels = jax.random.randint(keys[2], (3, 4), 0, ITEMS).at[0, 0].set(-1).at[2, 3].set(-1)
    return states, table, labels


def plain(states, table, labels):
    """The same loss by optax, all scores at once."""
    known = labels >= 0
    found = optax.softmax_cross_entropy_with_integer_labels(
        states @ table.T, jnp.maximum(labels, 0)
    )
    return jnp.where(known, found, 0.0).sum()


@pytest.mark.parametrize("chunk_rows", [1, 5, 12, 100])
def test_cross_entropy_and_its_gradient_equal_the_plain_form(case, chunk_rows, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_ROWS", chunk_rows)
    states, table, labels = case

    def ours(states, table):
        return (
            0.7
            * next_item_loss(states, table, labels, config=LossConfig(), key=jax.random.key(0))[0]
        )

    value, gradients = jax.value_and_grad(ours, (0, 1))(states, table)
    wanted, wanted_gradients = jax.value_and_grad(lambda s, t: 0.7 * plain(s, t, labels), (0, 1))(
        states, table
    )
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for found, expected in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "items", "chunk"), [(1600, 1682, 400), (1648, 12101, 206), (401, 5, 201)]
)
def test_chunks_are_small_and_of_equal_size(count, items, chunk):
    floats, labels = jnp.float32, jax.ShapeDtypeStruct((count,), jnp.int32)
    states, table = (jax.ShapeDtypeStruct((rows, 3), floats) for rows in (count, items))
    program = str(jax.make_jaxpr(losses.cross_entropy_sum)(states, table, labels))
    scores = set(re.findall(rf"f32\[(\d+),{items}\]", program))
    assert scores == {str(chunk), "3"}  # "3" is the transposed table


@pytest.mark.parametrize("name", losses.LOSSES)
def test_labels_of_another_form_than_the_states_are_refused(case, name):
    states, table, labels = case
    for wrong in (labels.T, labels[:1]):  # as many in another order, or the same for every row
        with pytest.raises(AssertionError, match="expected"):
            next_item_loss(
                states, table, wrong, config=LossConfig(name=name), key=jax.random.key(0)
            )


def test_cross_entropy_survives_large_scores():
    states, table = jnp.full((1, 1, 1), 1e4), jnp.array([[1.0], [0.0]])
    for label, expected in ((0, 0.0), (1, 1e4)):
        total, _ = next_item_loss(
            states, table, jnp.array([[label]]), config=LossConfig(), key=jax.random.key(0)
        )
        assert float(total) == pytest.approx(expected)


def test_only_labels_are_counted(case):
    for name in losses.LOSSES:
        _, count = next_item_loss(*case, config=LossConfig(name), key=jax.random.key(0))
        assert float(count) == 10
    states, table, labels = case
    for name in losses.LOSSES:
        config = LossConfig(name) if name == "cross_entropy" else LossConfig(name, negatives=4)
        gradient = jax.grad(
            lambda s, config=config: next_item_loss(
                s, table, labels, config=config, key=jax.random.key(0)
            )[0]
        )(states)
        assert (np.asarray(gradient[labels < 0]) == 0).all()
        assert (np.abs(np.asarray(gradient[labels >= 0])).sum(-1) > 0).all()


def test_sampled_softmax_over_all_items_is_the_softmax(case):
    states, table, labels = case
    scores = states @ table.T
    drawn = jnp.broadcast_to(jnp.arange(ITEMS), scores.shape)
    positive = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
    found = losses.sampled_softmax(positive, scores, drawn != labels[..., None], others=ITEMS - 1)
    expected = optax.softmax_cross_entropy_with_integer_labels(scores, jnp.maximum(labels, 0))
    np.testing.assert_allclose(found[labels >= 0], expected[labels >= 0], rtol=1e-5)


def test_sampled_softmax_estimates_the_softmax(case):
    config = LossConfig("sampled_softmax", negatives=4000)
    total, _ = next_item_loss(*case, config=config, key=jax.random.key(1))
    np.testing.assert_allclose(total, plain(*case), rtol=0.02)


def test_sampled_softmax_by_its_own_negatives(case):
    """Each drawn item that is not the label stands for as many of the others as were not drawn."""
    states, table, labels = case
    key, count = jax.random.key(3), 4
    config = LossConfig("sampled_softmax", negatives=count)
    total, _ = next_item_loss(*case, config=config, key=key)
    drawn = np.asarray(jax.random.randint(key, (3, count), 0, ITEMS))
    scores, expected = np.asarray(states @ table.T, np.float64), 0.0
    for row, column in np.argwhere(np.asarray(labels) >= 0):
        own, label = scores[row, column], int(labels[row, column])
        wrong = [own[item] for item in drawn[row] if item != label]
        others = (ITEMS - 1) / len(wrong) * np.exp(wrong).sum()
        expected += np.log(np.exp(own[label]) + others) - own[label]
    np.testing.assert_allclose(total, expected, rtol=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_states_in_half_precision_are_summed_in_float32(case, name):
    states, table, labels = case
    config = LossConfig(name) if name == "cross_entropy" else LossConfig(name, negatives=4)
    half = [one.astype(jnp.bfloat16) for one in (states, table)]
    whole = [one.astype(jnp.float32) for one in half]
    found, _ = next_item_loss(*half, labels, config=config, key=jax.random.key(0))
    wanted, _ = next_item_loss(*whole, labels, config=config, key=jax.random.key(0))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_gbce_by_hand():
    positive, negative = jnp.array([[0.3]]), jnp.array([[[1.0, -2.0, 5.0]]])
    usable = jnp.array([[[True, True, False]]])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    beta = 0.4
    expected = (
        -(np.log(sigmoid(0.3) ** beta) + np.log(1 - sigmoid(1)) + np.log(1 - sigmoid(-2))) / 3
    )
    found = losses.gbce(positive, negative, usable, beta=beta)
    np.testing.assert_allclose(found, [[expected]], rtol=1e-5)


def test_gbce_beta_is_one_without_calibration_and_the_rate_with_all_of_it():
    assert losses.gbce_beta(0.1, 0.0) == pytest.approx(1.0)
    assert losses.gbce_beta(0.1, 1.0) == pytest.approx(0.1)
    # gSASRec's own example: 256 negatives of 10^6 items, t = 0.75.
    assert losses.gbce_beta(256 / 999_999, 0.75) == pytest.approx(0.25019, abs=1e-5)


@pytest.mark.parametrize("calibration", [0.0, 0.75])
def test_gbce_is_calibrated_by_the_rate_of_its_own_negatives(case, calibration):
    states, table, labels = case
    key, count = jax.random.key(3), 4
    config = LossConfig("gbce", negatives=count, calibration=calibration)
    total, _ = next_item_loss(states, table, labels, config=config, key=key)
    drawn = np.asarray(jax.random.randint(key, (3, count), 0, ITEMS))
    rate = count / (ITEMS - 1)
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    scores, expected = np.asarray(states @ table.T, np.float64), 0.0
    for row, column in np.argwhere(np.asarray(labels) >= 0):
        label, all_scores = int(labels[row, column]), scores[row, column]
        wrong = [all_scores[item] for item in drawn[row] if item != label]
        negative = sum(np.log1p(np.exp(score)) for score in wrong)
        positive = beta * np.log1p(np.exp(-all_scores[label]))
        expected += (positive + negative) / (len(wrong) + 1)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_negatives_follow_the_key(case):
    config = LossConfig("gbce", negatives=3)
    first, second, other = (
        float(next_item_loss(*case, config=config, key=jax.random.key(key))[0]) for key in (0, 0, 1)
    )
    assert first == second != other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "bpr"}, "teacher.loss.name is 'bpr': use one of cross_entropy"),
        ({"name": "gbce", "negatives": 0}, "teacher.loss.negatives is 0"),
        ({"name": "gbce", "calibration": 1.5}, "teacher.loss.calibration is 1.5"),
        ({"negatives": 99}, "negatives=99.*cross_entropy draws no negatives"),
    ],
)
def test_bad_settings_are_errors(change, message):
    with pytest.raises(UserError, match=message):
        LossConfig(**change)


def test_settings_at_their_limits_and_beyond():
    assert LossConfig("gbce", negatives=1, calibration=1.0).negatives == 1
    assert LossConfig("gbce", calibration=0.0).calibration == 0
    with pytest.raises(UserError, match=r"calibration is -0\.5"):
        LossConfig("gbce", calibration=-0.5)
    with pytest.raises(UserError, match="cross_entropy draws no negatives"):
        LossConfig(calibration=0.5)


def test_a_chunk_has_as_many_labels_as_its_share_of_the_tables_gradient_is_worth():
    found = [losses.rows_per_chunk(items, 64) for items in (100, 12_101, 200_000, 5_000_000)]
    assert found == [400, 206, 64, 64]


def test_a_catalogue_larger_than_a_chunk_is_scored_in_few_rows(case, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_SCORES", ITEMS - 1)
    total, _ = next_item_loss(*case, config=LossConfig(), key=jax.random.key(0))
    np.testing.assert_allclose(total, plain(*case), rtol=1e-5)


def test_one_usable_negative_stands_for_all_others():
    usable = jnp.array([[[True, False]]])
    found = losses.sampled_softmax(jnp.array([[0.3]]), jnp.array([[[1.0, 5.0]]]), usable, others=12)
    expected = np.log(np.exp(0.3) + 12 * np.exp(1.0)) - 0.3
    np.testing.assert_allclose(found, [[expected]], rtol=1e-5)


def test_more_negatives_than_items_are_a_rate_of_one():
    assert losses.gbce_beta(3.0, 0.75) == losses.gbce_beta(1.0, 0.75) == 1.0


def test_the_loss_is_the_same_over_any_number_of_devices(case, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_ROWS", 4)
    states, table, labels = case
    flat = states.reshape(-1, states.shape[-1])
    asked = jax.value_and_grad(losses.cross_entropy_sum, argnums=(0, 1))
    one, first = asked(flat, table, labels.reshape(-1))
    for ways in (2, 3, 7):  # whatever divides or not
        other, gradients = asked(flat, table, labels.reshape(-1), ways)
        np.testing.assert_allclose(other, one, rtol=1e-6)
        chex.assert_trees_all_close(gradients, first, rtol=1e-5, atol=1e-6)
