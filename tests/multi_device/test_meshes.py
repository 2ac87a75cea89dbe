"""The stages that train the LM under several meshes of eight fake devices: the same losses, and only needed exchanges."""

import json
from pathlib import Path

import numpy as np
import pytest
from shared_runs import shared

MESHES = ("8x1x1", "1x8x1", "2x2x2")
RUNS = ("prompt/true", "adapter/distilled", "preference/seed-0")


@pytest.fixture(scope="session")
def found(tiny_run, tmp_path_factory, on_devices):
    """By mesh, what `meshes.py` prints."""
    script = Path(__file__).with_name("meshes.py")
    with shared(tmp_path_factory, "meshes") as (path, ready):
        if not ready:
            alone = on_devices(script, tiny_run, "1x1x1", count=1)
            path.write_text(json.dumps(alone | on_devices(script, tiny_run, *MESHES)))
    return json.loads(path.read_text())


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("mesh", MESHES)
def test_five_steps_are_those_of_one_device(found, mesh, run):
    alone, many = found["1x1x1"], found[mesh]
    assert many["devices"] == 8 and alone["devices"] == 1
    assert len(alone[run]["losses"]) == 5
    np.testing.assert_allclose(many[run]["losses"], alone[run]["losses"], atol=1e-5)
    np.testing.assert_allclose(many[run]["params"], alone[run]["params"], rtol=1e-4)


@pytest.mark.parametrize("run", RUNS)
def test_one_device_exchanges_nothing(found, run):
    assert found["1x1x1"][run]["exchanges"] == []


@pytest.mark.parametrize("run", RUNS)
def test_copies_exchange_gradients_alone(found, run):
    result = found["8x1x1"][run]
    assert result["split leaves"] == 0
    assert {kind for kind, _ in result["exchanges"]} == {"all-reduce"}


@pytest.mark.parametrize("run", RUNS)
def test_shared_weights_are_gathered_layer_by_layer(found, run):
    result = found["1x8x1"][run]
    assert result["split leaves"] > result["leaves"] / 2
    assert {"all-gather", "all-reduce"} <= {kind for kind, _ in result["exchanges"]}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("mesh", ["1x8x1", "2x2x2"])
def test_the_tables_of_words_are_never_gathered(found, mesh, run):
    result = found[mesh][run]
    rows = result["table"][0]
    assert result["head"][1] == rows, "the head has a column a row of the table"
    parts = {"1x8x1": 8, "2x2x2": 4}[mesh]
    assert result["table piece"] == [rows // parts, result["table"][1]]
    # Whole or in halves: no exchange has as many rows (or columns) as a good part of the vocabulary.
    tables = [
        shape
        for _, shape in result["exchanges"]
        if any(
            int(size) >= rows // 2 for size in shape[shape.index("[") + 1 : -1].split(",") if size
        )
    ]
    assert tables == []


@pytest.mark.parametrize("run", RUNS)
def test_activations_are_constrained(found, run):
    # Under no active rules Linen's constraints would lower to nothing, in silence.
    assert found["2x2x2"][run]["constraints"] > 10
