"""Ranking and lists over eight fake devices: exactly those of one, and no device ever holds all scores."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from delrec_jax.training.sharding import MeshConfig
from delrec_jax.workdir.spread_scores import spread_over

MESHES = ("8x1x1", "2x2x2", "1x4x2")
PIECES = {  # rows and columns of a batch of 24 (20 asked), and columns of the scores by `users` and `catalogue`
    "8x1x1 64": ([3, 64], [3, 64]),
    "2x2x2 64": ([5, 32], [12, 16]),
    "1x4x2 64": ([5, 32], [24, 8]),
    "8x1x1 61": ([3, 61], [3, 61]),  # 61 items do not divide: whole rows, of fewer users
    "2x2x2 61": ([5, 61], [6, 61]),
    "1x4x2 61": ([5, 61], [6, 61]),
}


@pytest.fixture(scope="module")
def found(on_devices):
    return on_devices(Path(__file__).with_name("spread.py"))


@pytest.mark.parametrize("case", PIECES)
def test_ranks_and_lists_are_those_of_one_device(found, case):
    assert found["devices"] == 8
    assert found[case]["equal"] and found[case]["vectors equal"] and found[case]["infinite"]


@pytest.mark.parametrize("case", PIECES)
def test_no_device_holds_all_scores(found, case):
    result, (piece, wide) = found[case], PIECES[case]
    assert (result["piece"], result["wide piece"]) == (piece, wide)
    # For each row of a batch of 24 no more than each of eight devices' three best items, whatever the catalogue's size.
    assert result["exchanged"] <= 24 * 8 * 3
    if case.endswith("64"):
        tensor = int(case[4])
        assert result["matrix"] == [64, 64 // tensor]


def test_many_devices_are_used_and_one_is_left_alone(found):
    assert found["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert spread_over(SimpleNamespace(mesh=MeshConfig())) is None


@pytest.mark.parametrize(("mesh", "rows"), [("8x1x1", 17), ("2x2x2", 20), ("1x4x2", 20)])
def test_each_device_computes_the_teachers_loss_of_its_own_rows(found, mesh, rows):
    """In chunks of at most 20; no row leaves its device, and gradients to the table are added once, not after every chunk."""
    alone = {"gathered": 0, "sums of every chunk": 0, "tables summed": 1}
    assert found["loss"][mesh] == alone | {"rows": [str(rows)]}
