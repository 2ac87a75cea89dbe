"""Parameter counts by arithmetic, and shapes that cannot be."""

import jax
import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.teachers.caser import Caser, CaserConfig
from delrec_jax.teachers.gru4rec import GRU4Rec, GRU4RecConfig
from delrec_jax.teachers.network import init_params
from delrec_jax.teachers.sasrec import SASRec, SASRecConfig

ITEMS = 11


def shapes_of_params(module):
    return jax.eval_shape(lambda key: init_params(module, key), jax.random.key(0))


def size(module):
    return sum(x.size for x in jax.tree.leaves(shapes_of_params(module)))


def test_sasrec():
    config = SASRecConfig(width=16, layers=2, heads=2, max_length=8)
    d = config.width
    norm, square = 2 * d, d * d + d
    block = 2 * norm + 4 * square + (4 * d * d + 4 * d) + (4 * d * d + d)
    expected = ITEMS * d + config.max_length * d + config.layers * block + norm
    assert size(SASRec(config, ITEMS)) == expected


def test_gru4rec():
    config = GRU4RecConfig(width=12, hidden=20, layers=2)
    d, h = config.width, config.hidden
    # Flax keeps the hidden bias of the new state apart, as the original does.
    layers = sum(3 * (wide * h + h) + 3 * h * h + h for wide in (d, h))
    assert size(GRU4Rec(config, ITEMS)) == ITEMS * d + layers + h * d + d


def test_caser():
    config = CaserConfig(width=12, window=5, heights=(2, 4), horizontal=7, vertical=3)
    d = config.width
    filters = sum(height * d * 7 + 7 for height in config.heights)
    features = 2 * 7 + 3 * d
    expected = ITEMS * d + filters + (5 * 3 + 3) + features * d + d
    assert size(Caser(config, ITEMS)) == expected


def test_caser_convolves_as_by_hand():
    module = Caser(CaserConfig(width=3, window=3, heights=(2,), horizontal=8, vertical=2), 3)
    rng = np.random.default_rng(2)
    params = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), shapes_of_params(module)
    )
    vectors = params["items"]["embedding"]
    image = np.stack([np.zeros(3), vectors[1], vectors[2]])  # history (1, 2), window 3
    high = params["filters_0"]
    responses = [image[o : o + 2].reshape(-1) @ high["kernel"] + high["bias"] for o in (0, 1)]
    largest = np.maximum(*responses)
    assert np.minimum(*responses).max() > 0  # a filter with two responses, so the largest matters
    down = image.T @ params["columns"]["kernel"] + params["columns"]["bias"]
    features = np.concatenate([np.maximum(largest, 0), down.reshape(-1)])
    out = features @ params["out"]["kernel"] + params["out"]["bias"]
    assert largest.min() < 0 < largest.max() and out.min() < 0 < out.max()  # so both ReLUs matter
    found = jax.jit(module.apply)({"params": params}, np.array([[1, 2]]))[0, -1]
    np.testing.assert_allclose(found, np.maximum(out, 0), rtol=1e-5)


def test_gru4rec_steps_as_by_hand():
    """Cho et al. 2014, with the reset gate after the product, as in cuDNN: two layers, each from a state of zeros."""
    module = GRU4Rec(GRU4RecConfig(width=3, hidden=4, layers=2), 5)
    histories = np.array([[-1, -1, 3, 1], [4, 0, -1, 2]])  # the second has an unknown item
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes_of_params(module))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def stepped(cell, state, x):
        def of_input(gate):
            return x @ cell[f"i{gate}"]["kernel"] + cell[f"i{gate}"]["bias"]

        reset = sigmoid(of_input("r") + state @ cell["hr"]["kernel"])
        update = sigmoid(of_input("z") + state @ cell["hz"]["kernel"])
        before = state @ cell["hn"]["kernel"] + cell["hn"]["bias"]
        return (1 - update) * np.tanh(of_input("n") + reset * before) + update * state

    found = jax.jit(module.apply)({"params": params}, histories)
    for history, states in zip(histories, found, strict=True):
        first = int(np.argmax(history >= 0))
        upper = lower = np.zeros(4)
        for place in range(first, 4):
            known = history[place] >= 0
            x = params["items"]["embedding"][history[place]] if known else np.zeros(3)
            lower = stepped(params["layers_0"]["cell"], lower, x)
            upper = stepped(params["layers_1"]["cell"], upper, lower)
            expected = upper @ params["out"]["kernel"] + params["out"]["bias"]
            np.testing.assert_allclose(states[place], expected, rtol=0, atol=1e-5)


def test_a_row_longer_than_the_position_table_is_refused():
    module = SASRec(SASRecConfig(max_length=8), ITEMS)
    params = shapes_of_params(module)
    with pytest.raises(ValueError, match="history of 11 items needs more positions than the 8 of"):
        jax.eval_shape(module.apply, {"params": params}, np.zeros((1, 11), np.int32))


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (SASRecConfig, {"heads": 3}, "teacher.sasrec.heads: 3 heads cannot share .*width=64"),
        (SASRecConfig, {"width": 0}, "teacher.sasrec.width: 0"),
        (SASRecConfig, {"dropout": 1.0}, "teacher.sasrec.dropout: 1.0"),
        (GRU4RecConfig, {"hidden": 0}, "teacher.gru4rec.hidden: 0"),
        (GRU4RecConfig, {"dropout": -0.1}, "teacher.gru4rec.dropout: -0.1"),
        (CaserConfig, {"heights": (2, 6)}, "teacher.caser.heights: .* teacher.caser.window=5"),
        (CaserConfig, {"heights": ()}, "teacher.caser.heights"),
        (CaserConfig, {"vertical": 0}, "teacher.caser.vertical: 0"),
        (CaserConfig, {"dropout": 1.0}, "teacher.caser.dropout: 1.0"),
    ],
)
def test_impossible_shapes_are_errors(config, change, message):
    with pytest.raises(UserError, match=message):
        config(**change)
