from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.errors import UserError
from delrec_jax.teachers.protocol import next_item_cross_entropy
from delrec_jax.teachers.sasrec import (
    SASRec,
    SASRecConfig,
    SASRecTeacher,
    init_params,
    sequence_loss,
    training_windows,
)

SMALL = SASRecConfig(width=16, layers=2, heads=2, max_length=8, dropout=0.2)
ITEMS = 11
APPLY = jax.jit(
    lambda module, params, rows: module.apply({"params": params}, rows), static_argnums=0
)


@pytest.fixture(scope="module")
def module():
    return SASRec(SMALL, num_items=ITEMS)


@pytest.fixture(scope="module")
def params(module):
    # Far from the small initial values, so that every path carries a visible signal.
    fresh = init_params(module, jax.random.key(0))
    leaves, tree = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        tree, [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


def hidden(module, params, rows):
    return np.asarray(APPLY(module, params, np.asarray(rows, dtype=np.int32)))


def test_parameter_count_by_arithmetic(params):
    d = SMALL.width
    norm, square = 2 * d, d * d + d
    block = 2 * norm + 4 * square + (4 * d * d + 4 * d) + (4 * d * d + d)
    expected = ITEMS * d + SMALL.max_length * d + SMALL.layers * block + norm
    assert sum(x.size for x in jax.tree.leaves(params)) == expected


def test_later_items_do_not_change_earlier_states(module, params):
    before = hidden(module, params, [[1, 2, 3, 4, 5]])
    after = hidden(module, params, [[1, 2, 3, 9, 10]])
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 1e-2


def test_every_earlier_item_counts(module, params):
    base = hidden(module, params, [[1, 2, 3, 4]])[0, -1]
    for place in range(4):
        changed = [1, 2, 3, 4]
        changed[place] = 7
        assert np.abs(hidden(module, params, [changed])[0, -1] - base).max() > 1e-3
    assert np.abs(hidden(module, params, [[2, 1, 3, 4]])[0, -1] - base).max() > 1e-3


@pytest.mark.parametrize("history", [[], [4], [1, 2, 3], [3, -1, 5]])
def test_left_padding_changes_nothing(module, params, history):
    teacher = SASRecTeacher(params=params, module=module)
    short = np.asarray([[-1, *history]], dtype=np.int32)
    padded = np.asarray([[-1] * (8 - len(history)) + history], dtype=np.int32)
    np.testing.assert_allclose(teacher.scores(short), teacher.scores(padded), atol=1e-5)
    count = len(history)
    if count:
        states = hidden(module, params, short)[:, -count:]
        np.testing.assert_allclose(states, hidden(module, params, padded)[:, -count:], atol=1e-5)


def test_an_empty_history_is_not_the_history_of_item_zero(module, params):
    teacher = SASRecTeacher(params=params, module=module)
    empty, zero = np.asarray(teacher.scores(np.asarray([[-1, -1], [-1, 0]])))
    assert np.isfinite(empty).all()
    assert np.abs(empty - zero).max() > 1e-3


def test_scores_are_tied_to_the_item_table_and_read_the_last_position(module, params):
    rows = np.asarray([[1, 2, 3], [-1, 5, 6]], dtype=np.int32)
    expected = hidden(module, params, rows)[:, -1] @ np.asarray(params["items"]["embedding"]).T
    scores = SASRecTeacher(params=params, module=module).scores(rows)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_only_the_most_recent_items_of_a_long_history_are_read(module, params):
    teacher = SASRecTeacher(params=params, module=module)
    recent = np.arange(8)[None]
    long = np.concatenate([[[9, 10, 9]], recent], axis=1)
    np.testing.assert_array_equal(teacher.scores(long), teacher.scores(recent))
    with pytest.raises(ValueError, match="history of 11 items, positions for 8"):
        hidden(module, params, long)


def test_dropout_follows_the_key_and_is_off_without(module, params):
    inputs, labels = training_windows(np.array([0, 6]), np.arange(6), length=5)
    batch = {"inputs": inputs, "labels": labels}

    def loss(key):
        return np.asarray(sequence_loss(params, module, batch=batch, key=key)[0])

    np.testing.assert_array_equal(loss(None), loss(None))
    np.testing.assert_array_equal(loss(jax.random.key(3)), loss(jax.random.key(3)))
    assert np.abs(loss(jax.random.key(3)) - loss(jax.random.key(4))).max() > 1e-3


def test_cross_entropy_by_hand_and_masked_labels():
    logits = jnp.log(jnp.asarray([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    losses, weights = next_item_cross_entropy(logits, jnp.asarray([[1, -1]]))
    np.testing.assert_allclose(losses, [[np.log(4), 0.0]], rtol=1e-6)
    np.testing.assert_array_equal(weights, [[1.0, 0.0]])


def test_padding_has_no_loss_and_no_gradient_beyond_its_labels(module, params):
    batch = {"inputs": jnp.asarray([[-1, -1, 3]]), "labels": jnp.asarray([[-1, -1, 4]])}

    @jax.jit
    @jax.grad
    def gradient(params, batch):
        return sequence_loss(params, module, batch=batch, key=None)[0].sum()

    longer = {k: jnp.pad(v, ((0, 2), (2, 0)), constant_values=-1) for k, v in batch.items()}
    short, long = (gradient(params, b) for b in (batch, longer))
    for a, b in zip(jax.tree.leaves(short), jax.tree.leaves(long), strict=True):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_overfits_a_cycle():
    # Two cycles that share item 0: the next item depends on more than the last one.
    cycles = [[0, 1, 2, 3] * 4, [0, 3, 2, 1] * 4]
    items = np.concatenate(cycles).astype(np.int32)
    inputs, labels = training_windows(np.array([0, 16, 32]), items, length=8)
    batch = {"inputs": inputs, "labels": labels}
    module = SASRec(SASRecConfig(width=16, layers=1, heads=2, max_length=8, dropout=0.0), 4)
    params = init_params(module, jax.random.key(0))
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        def mean_loss(params):
            losses, weights = sequence_loss(params, module, batch=batch, key=None)
            return losses.sum() / weights.sum()

        loss, grads = jax.value_and_grad(mean_loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    state = optimizer.init(params)
    for _ in range(200):
        params, state, loss = step(params, state)
    # Only a window's first label can be ambiguous (no item before it tells the cycle).
    assert loss < 0.15
    scores = SASRecTeacher(params=params, module=module).scores(np.asarray([[0, 1, 2], [0, 3, 2]]))
    assert scores.argmax(1).tolist() == [3, 1]


def test_windows_by_hand():
    inputs, labels = training_windows(np.array([0, 5, 6, 8]), np.arange(8), length=3)
    assert inputs.tolist() == [[-1, -1, 0], [1, 2, 3], [-1, -1, 6]]
    assert labels.tolist() == [[-1, -1, 1], [2, 3, 4], [-1, -1, 7]]


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 13), min_size=1, max_size=6).filter(lambda x: max(x) > 1),
    length=st.integers(1, 6),
)
def test_windows_hold_every_label_exactly_once(lengths, length):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.arange(offsets[-1])  # unique, so that an item names its place
    inputs, labels = training_windows(offsets, items, length=length)
    expected = [p for lo, hi in pairwise(offsets) for p in range(lo + 1, hi)]
    assert labels[labels >= 0].tolist() == expected
    assert ((labels >= 0) == (inputs >= 0)).all()
    assert (labels[labels >= 0] == inputs[labels >= 0] + 1).all()
    known = labels >= 0
    assert (np.diff(known.astype(int), axis=1) >= 0).all()  # padding on the left only
    assert known.any(axis=1).all()


def test_nothing_to_learn_is_an_error():
    with pytest.raises(UserError, match="no user has two interactions"):
        training_windows(np.array([0, 1, 2]), np.array([3, 4]), length=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "teacher.heads: 3 heads cannot share teacher.width=64"),
        ({"width": 0}, "teacher.width: 0"),
        ({"dropout": 1.0}, "teacher.dropout: 1.0"),
    ],
)
def test_impossible_shapes_are_errors(change, message):
    with pytest.raises(UserError, match=message):
        SASRecConfig(**change)
