"""What holds for every trained teacher."""

from dataclasses import fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiled import loss as compiled_loss
from compiled import scores
from network_shapes import LENGTH, SHAPES

from delrec_jax.config import TeacherConfig
from delrec_jax.teachers.losses import LOSSES, LossConfig
from delrec_jax.teachers.network import NetworkTeacher, init_params, sequence_loss, steps_to_end
from delrec_jax.teachers.registry import NETWORKS, display_name
from delrec_jax.teachers.sasrec import SASRec
from delrec_jax.teachers.windows import training_rows

ITEMS = 11
KINDS = [(name, "own") for name in NETWORKS] + [("sasrec", "concatenate"), ("caser", "adapter")]
TEXT = np.random.default_rng(0).normal(size=(ITEMS, 5)).astype(np.float32)


@partial(jax.jit, static_argnames=("module", "method"))
def applied(module, params, *rows, method=None):
    variables = {"params": params, "text": {"items": {"vectors": TEXT}}}
    return module.apply(variables, *rows, method=method)


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def teacher(request):
    """Far from the small initial values, so that every path carries a visible signal."""
    name, way = request.param
    module, text = NETWORKS[name](SHAPES[name], ITEMS, way), None if way == "own" else TEXT
    leaves, tree = jax.tree.flatten(init_params(module, jax.random.key(0), text))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return NetworkTeacher(jax.tree.unflatten(tree, moved), module, text)


def states(teacher, *rows):
    rows = (np.asarray(row, np.int32) for row in rows)
    return np.asarray(applied(teacher.module, teacher.params, *rows))


def table(teacher):
    return np.asarray(applied(teacher.module, teacher.params, method="table"))


def test_every_network_has_settings_and_a_name_to_show():
    assert set(NETWORKS) == set(SHAPES) <= {field.name for field in fields(TeacherConfig)}
    shown = {display_name(name) for name in NETWORKS}
    assert len(shown) == len(NETWORKS) and all(shown)
    assert display_name("sasrec+ease") == "SASRec + EASE"


def test_later_items_do_not_change_earlier_states(teacher):
    before, after = (states(teacher, [[1, 2, 3, *rest]]) for rest in ([4, 5], [9, 10]))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 1e-3


def test_every_earlier_item_and_their_order_count(teacher):
    base = states(teacher, [[1, 2, 3, 4]])[0, -1]
    for place in range(4):
        changed = [1, 2, 3, 4]
        changed[place] = 7
        assert np.abs(states(teacher, [changed])[0, -1] - base).max() > 1e-4
    assert np.abs(states(teacher, [[2, 1, 3, 4]])[0, -1] - base).max() > 1e-4


@pytest.mark.parametrize("history", [[], [4], [1, 2, 3], [3, -1, 5]])
def test_left_padding_changes_nothing(teacher, history):
    short = np.asarray([[-1, *history]], dtype=np.int32)
    padded = np.asarray([[-1] * (LENGTH - len(history)) + history], dtype=np.int32)
    np.testing.assert_allclose(scores(teacher, short), scores(teacher, padded), atol=1e-5)


def test_an_empty_history_is_not_the_history_of_item_zero(teacher):
    empty, zero = np.asarray(scores(teacher, np.asarray([[-1, -1], [-1, 0]])))
    assert np.isfinite(empty).all()
    assert np.abs(empty - zero).max() > 1e-4


@pytest.mark.parametrize("histories", [[1, 2, 3], [[[1, 2, 3]]]])
def test_histories_are_rows(teacher, histories):
    with pytest.raises(AssertionError, match=r"rank \d .* expected 2"):
        scores(teacher, np.asarray(histories, np.int32))


def test_windows_packed_into_one_row_do_not_see_each_other(teacher):
    windows = [[5, 6], [1, 2, 3], [9]]
    row = [5, 6, 1, 2, 3, 9, -1, -1]
    segments = [1, 1, 2, 2, 2, 3, 0, 0]
    packed = states(teacher, [row], [segments])[0]
    alone = [states(teacher, [[-1] * (LENGTH - len(w)) + w])[0, -len(w) :] for w in windows]
    np.testing.assert_allclose(packed[:6], np.concatenate(alone), atol=1e-5)


def test_the_last_state_is_that_of_the_whole_call(teacher):
    rows = np.asarray([[1, 2, 3, 4, 5, 6, 7, 8], [-1, -1, -1, -1, -1, 5, -1, 6]], np.int32)
    last = applied(teacher.module, teacher.params, rows, method="last")
    np.testing.assert_allclose(last, states(teacher, rows)[:, -1], atol=1e-5)


def test_scores_are_products_with_the_item_table(teacher):
    rows = np.asarray([[1, 2, 3], [-1, 5, 6]], dtype=np.int32)
    assert table(teacher).shape == (ITEMS, teacher.module.config.width)
    expected = states(teacher, rows)[:, -1] @ table(teacher).T
    np.testing.assert_allclose(scores(teacher, rows), expected, rtol=1e-4, atol=1e-5)


def test_only_the_most_recent_items_of_a_long_history_are_read(teacher):
    recent = np.arange(LENGTH)[None]
    long = np.concatenate([[[9, 10, 9]], recent], axis=1)
    np.testing.assert_array_equal(scores(teacher, long), scores(teacher, recent))


def test_dropout_follows_the_key_and_is_off_when_told(teacher):
    batch = training_rows(np.array([0, 6]), np.arange(6), length=5)

    def loss(key, deterministic=False):
        call = {"batch": batch, "config": LossConfig(), "key": jax.random.key(key)}
        (mean,), _ = compiled_loss(
            teacher.params, teacher.module, deterministic=deterministic, text=teacher.text, **call
        )
        return float(mean)

    assert loss(3) == loss(3) != loss(4)
    assert loss(3, deterministic=True) == loss(4, deterministic=True)


def overfitted(module, sequences, *, loss, steps):
    """The scores of a network trained on a few sequences alone."""
    lengths = [len(sequence) for sequence in sequences]
    rows = training_rows(
        np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(sequences), length=LENGTH
    )
    params = init_params(module, jax.random.key(0))
    optimizer = optax.adam(1e-2)

    def mean_loss(params, key):
        sampled = {} if loss == "cross_entropy" else {"negatives": 8}
        batch, config = rows, LossConfig(loss, **sampled)
        return sequence_loss(params, module, batch=batch, config=config, key=key)[0][0]

    @jax.jit
    def step(params, state, key):
        updates, state = optimizer.update(jax.grad(mean_loss)(params, key), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for number in range(steps):
        params, state = step(params, state, jax.random.fold_in(jax.random.key(1), number))
    return partial(scores, NetworkTeacher(params, module))


@pytest.mark.parametrize("name", NETWORKS)
def test_overfits_cycles_that_only_earlier_items_tell_apart(name):
    module = NETWORKS[name](replace(SHAPES[name], dropout=0.0), 4)
    cycles = [np.array([0, 1, 2, 3] * 4), np.array([0, 3, 2, 1] * 4)]
    overfit = overfitted(module, cycles, loss="cross_entropy", steps=200)
    assert overfit(np.array([[0, 1, 2], [0, 3, 2]])).argmax(1).tolist() == [3, 1]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_a_cycle(loss):
    module = SASRec(replace(SHAPES["sasrec"], dropout=0.0), 4)
    overfit = overfitted(module, [np.array([0, 1, 2, 3] * 4)], loss=loss, steps=100)
    assert overfit(np.array([[2, 3, 0], [0, 1, 2]])).argmax(1).tolist() == [1, 3]


def test_the_loss_is_the_mean_over_labels_only(teacher):
    rows = training_rows(np.array([0, 4, 7]), np.array([1, 2, 3, 4, 5, 6, 7]), length=LENGTH)
    call = {"config": LossConfig(), "key": jax.random.key(0), "deterministic": True}
    (mean,), (count,) = compiled_loss(
        teacher.params, teacher.module, batch=rows, text=teacher.text, **call
    )
    logits = states(teacher, rows.items, rows.segments) @ table(teacher).T
    known = rows.labels >= 0
    each = optax.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits[known]), jnp.asarray(rows.labels[known])
    )
    assert count == known.sum() == 5
    np.testing.assert_allclose(mean, each.mean(), rtol=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "sampled_softmax"])
def test_an_output_bias_learns_how_popular_items_are(loss):
    """With a bias of their own, scores and losses are those of one more column in states and table."""
    module = SASRec(replace(SHAPES["sasrec"], dropout=0.0), ITEMS)
    params = init_params(module, jax.random.key(0), output_bias=True)
    assert params["output_bias"].shape == (ITEMS,) and not params["output_bias"].any()
    bias = jnp.arange(ITEMS, dtype=jnp.float32) / 10
    biased = {**params, "output_bias": bias}
    history = np.array([[3, 1, 2]])
    plain = {name: part for name, part in params.items() if name != "output_bias"}
    without = scores(NetworkTeacher(plain, module), history)
    np.testing.assert_array_equal(scores(NetworkTeacher(params, module), history), without)
    np.testing.assert_allclose(
        scores(NetworkTeacher(biased, module), history), without + bias, rtol=1e-6
    )

    rows = training_rows(np.array([0, 4]), np.array([1, 2, 3, 1]), length=LENGTH)
    sampled = {} if loss == "cross_entropy" else {"negatives": 64}
    config = LossConfig(loss, **sampled)

    def mean(params):
        return sequence_loss(params, module, batch=rows, config=config, key=jax.random.key(0))[0][0]

    gradient = jax.jit(jax.grad(mean))(params)["output_bias"]
    assert (gradient[jnp.array([1, 2, 3])] < 0).all(), "items that are labels go up"
    assert gradient[4:].min() >= 0 and gradient[4:].max() > 0, "the others go down"
    if loss == "cross_entropy":
        np.testing.assert_allclose(gradient.sum(), 0.0, atol=1e-6)


def test_steps_to_end_by_hand():
    segments = jnp.array([[1, 1, 2, 2, 2, 0], [0, 0, 1, 1, 1, 1]])
    assert steps_to_end(segments)[:, :5].tolist() == [[1, 0, 2, 1, 0], [1, 0, 3, 2, 1]]
