"""Networks that read text vectors: their start, what remains of them after training, and who is a negative."""

import chex
import jax
import numpy as np
import optax
import pytest
from compiled import scores
from network_shapes import shapes

from delrec_jax.teachers.losses import LOSSES, LossConfig
from delrec_jax.teachers.network import (
    NetworkTeacher,
    baked,
    check_labels,
    init_params,
    initialised,
    sequence_loss,
)
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.teachers.windows import training_rows

ITEMS, WIDTH, LENGTH = 9, 6, 5
RNG = np.random.default_rng(0)
TEXT = RNG.normal(size=(ITEMS, 4)).astype(np.float32)
SHAPES = shapes(width=WIDTH, max_length=LENGTH, dropout=0.0)
ROWS = training_rows(
    np.array([0, 4, 9]), np.array([1, 2, 4, 5, 7, 5, 1, 4, 2], np.int32), length=LENGTH
)
KNOWN = np.isin(np.arange(ITEMS), [1, 2, 4, 5, 7])
LOSS = {name: LossConfig(name) for name in LOSSES} | {
    name: LossConfig(name, negatives=3) for name in LOSSES if name != "cross_entropy"
}


def moved(params):
    """Far from the small initial values."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), params)


def network(name, way="own"):
    module = NETWORKS[name](SHAPES[name], ITEMS, way)
    return module, moved(init_params(module, jax.random.key(0), TEXT))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", ["concatenate", "adapter", "halves"])
def test_a_baked_network_is_a_plain_one_of_the_same_scores(name, way):
    module, params = network(name, way)
    plain, plain_params = network(name)
    found = baked(params, module, TEXT)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, plain_params)
    rows = np.array([[-1, -1, 3, 0, 8], [1, 2, 3, 4, 5]], np.int32)
    expected = scores(NetworkTeacher(params, module, TEXT), rows)
    np.testing.assert_allclose(scores(NetworkTeacher(found, plain), rows), expected, atol=1e-5)


@pytest.mark.parametrize("columns", [3, WIDTH])
def test_a_table_starts_as_given_vectors_and_keeps_its_other_columns(columns):
    _, params = network("caser")
    vectors = RNG.normal(size=(ITEMS, columns)).astype(np.float32)
    found = initialised(params, vectors, 0.5)
    table, before = found["items"]["embedding"], params["items"]["embedding"]
    np.testing.assert_allclose(table[:, :columns], 0.5 * vectors, rtol=1e-6)
    np.testing.assert_array_equal(table[:, columns:], before[:, columns:])
    chex.assert_trees_all_equal({**found, "items": {}}, {**params, "items": {}}, strict=True)


def test_vectors_that_do_not_fit_are_refused():
    _, params = network("caser")
    for shape in ((ITEMS, WIDTH + 1), (ITEMS - 1, WIDTH)):
        with pytest.raises(ValueError, match=r"do not fit into the item table \(9, 6\)"):
            initialised(params, np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"only a plain item table.*projection"):
        initialised(network("caser", "concatenate")[1], TEXT)


def test_an_adapter_teacher_learns_a_cycle_from_texts_alone():
    module = NETWORKS["caser"](SHAPES["caser"], 4, "adapter")
    text = TEXT[:4]
    params = init_params(module, jax.random.key(0), text)
    rows = training_rows(np.array([0, 16]), np.array([0, 1, 2, 3] * 4, np.int32), length=LENGTH)
    optimizer = optax.adam(1e-2)

    def loss(params):
        call = {"batch": rows, "config": LossConfig(), "key": jax.random.key(0)}
        return sequence_loss(params, module, text=text, **call)[0][0]

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = jax.jit(optimizer.init)(params)
    for _ in range(100):
        params, state = step(params, state)
    found = scores(NetworkTeacher(params, module, text), np.array([[2, 3, 0], [0, 1, 2]]))
    assert found.argmax(1).tolist() == [1, 3]


def brute_force(scores, drawn, loss):
    """The mean loss of the labels of BATCH with known items alone, label by label in float64.

    `scores` [B, L, I]; `drawn` [B, K] negatives as item numbers.
    """
    others, losses = KNOWN.sum() - 1, []
    for row, place in np.argwhere(ROWS.labels >= 0):
        all_scores, label = scores[row, place].astype(np.float64), ROWS.labels[row, place]
        true = all_scores[label]
        wrong = np.array([all_scores[item] for item in drawn[row] if item != label])
        if loss == "cross_entropy":
            losses.append(np.log(np.exp(all_scores[KNOWN]).sum()) - true)
        elif loss == "sampled_softmax":
            weighted = others / max(len(wrong), 1) * np.exp(wrong).sum()
            losses.append(np.log(np.exp(true) + weighted) - true)
        else:
            rate = len(drawn[row]) / others
            beta = rate * (0.75 * (1 - 1 / rate) + 1 / rate)
            total = beta * np.log1p(np.exp(-true)) + np.log1p(np.exp(wrong)).sum()
            losses.append(total / (len(wrong) + 1))
    return np.mean(losses)


@pytest.mark.parametrize("loss", LOSSES)
def test_only_known_items_are_negatives(loss):
    module, params = network("caser", "concatenate")
    key = jax.random.key(4)
    variables = {"params": params, "text": {"items": {"vectors": TEXT}}}

    @jax.jit
    def compiled(variables, key):
        table = module.apply(variables, method="table")
        states = module.apply(variables, ROWS.items, ROWS.segments)
        draws = jax.random.randint(jax.random.split(key)[1], (len(ROWS), 3), 0, KNOWN.sum())
        call = {"batch": ROWS, "config": LOSS[loss], "key": key, "text": TEXT, "known": KNOWN}
        return states @ table.T, draws, sequence_loss(variables["params"], module, **call)

    all_scores, draws, ((mean,), (count,)) = compiled(variables, key)
    drawn = np.flatnonzero(KNOWN)[np.asarray(draws)]
    np.testing.assert_allclose(mean, brute_force(np.asarray(all_scores), drawn, loss), rtol=1e-5)
    assert count == (ROWS.labels >= 0).sum() == 7


def item_gradient(loss, known):
    """The largest part of the gradient of each item's own vector."""
    module, params = network("caser")
    config = LossConfig() if loss == "cross_entropy" else LossConfig(loss, negatives=40)
    call = {"batch": ROWS, "config": config, "key": jax.random.key(0), "known": known}
    of = jax.jit(jax.grad(lambda p: sequence_loss(p, module, **call)[0][0]))(params)
    return np.abs(np.asarray(of["items"]["embedding"])).max(axis=1)


@pytest.mark.parametrize("loss", LOSSES)
def test_unknown_items_are_not_pushed_away(loss):
    assert (item_gradient(loss, KNOWN) > 0).tolist() == KNOWN.tolist()


def test_where_all_items_are_known_all_are_negatives():
    everything = item_gradient("cross_entropy", None)
    assert (everything > 0).all()
    known = np.ones(ITEMS, bool)
    np.testing.assert_array_equal(item_gradient("cross_entropy", known), everything)


def test_labels_must_be_known():
    check_labels(ROWS.labels, KNOWN)
    with pytest.raises(ValueError, match="1 labels are not known items; the first is 5"):
        check_labels(ROWS.labels, KNOWN & (np.arange(ITEMS) != 5))
    module, params = network("caser")
    call = {"batch": ROWS, "config": LossConfig(), "key": jax.random.key(0)}
    with pytest.raises(ValueError, match=r"known \(8,\) for 9 items"):
        sequence_loss(params, module, known=KNOWN[1:], **call)
