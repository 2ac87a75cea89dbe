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


def size(module):
    return sum(x.size for x in jax.tree.leaves(init_params(module, jax.random.key(0))))


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
    config = CaserConfig(width=2, window=3, heights=(2,), horizontal=1, vertical=1)
    module = Caser(config, 3)
    params = init_params(module, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
    vectors = params["items"]["embedding"]
    image = np.stack([np.zeros(2), vectors[1], vectors[2]])  # history (1, 2), window 3
    high = params["filters_0"]
    responses = [
        image[o : o + 2].reshape(-1) @ high["kernel"][:, 0] + high["bias"][0] for o in (0, 1)
    ]
    down = image.T @ params["columns"]["kernel"][:, 0] + params["columns"]["bias"][0]
    features = np.concatenate([[max(0.0, *responses)], down])
    expected = np.maximum(features @ params["out"]["kernel"] + params["out"]["bias"], 0)
    found = module.apply({"params": params}, np.array([[1, 2]]))[0, -1]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_row_longer_than_the_position_table_is_refused():
    module = SASRec(SASRecConfig(max_length=8), ITEMS)
    params = init_params(module, jax.random.key(0))
    with pytest.raises(ValueError, match="history of 11 items, positions for 8"):
        module.apply({"params": params}, np.zeros((1, 11), np.int32))


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
