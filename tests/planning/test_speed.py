"""What a step computes, and how long exchanges take, against figures worked by hand."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from delrec_jax.config import from_config, read_config
from delrec_jax.planning.chips import CHIPS
from delrec_jax.planning.exchange import Grid
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.speed import speed_of
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.planning.work import work_of

ROWS, WIDTH, LAYERS = 4, 8, 3


def planned(*, remat, parts=1):
    """A step of three layers with frozen weights: only the input's offset trains."""

    def layer(hidden, weight):
        return jnp.tanh(jnp.sin(hidden @ weight)), None

    if remat:
        layer = jax.checkpoint(layer)

    def loss(offset, frozen, rows):
        hidden, _ = jax.lax.scan(layer, rows + offset, frozen["stacked"].astype(jnp.float32))
        return (hidden @ frozen["last"]).sum()

    def step(state, frozen, batch, key):
        def part(total, rows):
            return total + jax.grad(loss)(state["offset"], frozen, rows), None

        split = batch.reshape(parts, ROWS // parts, WIDTH)
        return jax.lax.scan(part, jnp.zeros(WIDTH), split)[0]

    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    stacked = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.bfloat16)
    frozen = {"stacked": stacked, "last": shape(WIDTH, WIDTH), "unread": shape(WIDTH)}
    return SimpleNamespace(
        step=jax.jit(step),
        state={"offset": shape(WIDTH)},
        frozen=frozen,
        batch=shape(ROWS, WIDTH),
    )


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("remat", [False, True])
def test_operations_and_readings_of_a_step(remat, parts):
    work, product = work_of(planned(remat=remat, parts=parts)), 2 * ROWS * WIDTH * WIDTH
    # Forward and backward through each layer; of the last product only the backward pass is needed, for its sum is no result.
    assert work.useful == 2 * LAYERS * product + product
    assert work.again == (LAYERS * product if remat else 0)
    assert work.reads == {("stacked",): 2 * parts, ("last",): parts}


SIZE = 160e6


@pytest.mark.parametrize(
    ("chip", "devices", "slices", "ways", "stride", "seconds"),
    [
        # 4 x 4 chips: corners have half of their links of 200 GB/s.
        ("v5e", 16, 1, 16, 1, SIZE * 15 / 16 / 100e9),
        # Two of 16 lie along one of two dimensions.
        ("v5e", 16, 1, 2, 1, SIZE / 2 / 50e9),
        ("v5e", 256, 1, 256, 1, SIZE * 255 / 256 / 200e9),
        ("v5p", 64, 1, 64, 1, SIZE * 63 / 64 / 600e9),
        ("h100", 8, 1, 4, 2, SIZE * 3 / 4 / 450e9),
        # Two nodes: each of 8 GPUs brings an eighth of half of it over its own adapter, which takes less than the links do.
        ("h100", 16, 1, 16, 1, SIZE * 15 / 16 / 450e9),
        ("h100", 16, 1, 8, 2, SIZE / 2 / 200e9),
        # One GPU of each node brings all of it.
        ("h100", 16, 1, 2, 8, SIZE / 2 / 50e9),
        ("v5e", 512, 2, 512, 1, SIZE * 511 / 512 / 200e9),
        ("v5e", 512, 2, 2, 256, SIZE / 2 / 3.1e9),
        ("v5e", 16, 1, 1, 1, 0.0),
    ],
)
def test_seconds_until_an_array_is_whole(chip, devices, slices, ways, stride, seconds):
    assert Grid(CHIPS[chip], devices, slices).bring(SIZE, ways, stride) == pytest.approx(seconds)


def test_the_formula_is_as_near_to_measured_steps_as_it_says():
    root = Path(__file__).parents[2]
    record = json.loads((root / "benchmarks/results/accelerator_h200.json").read_text())
    config = read_config(root / "configs/delrec/ml100k_flan_t5_xl.py")
    config.prompts.max_tokens, config.lm.verbalizer = 512, "mean"
    config.distill.update(batch_size=32, weighting="fixed")
    config.tune.update(batch_size=32)
    config.tune.adalora.update(init_rank=12)
    experiment, assumed = from_config(config), Assumed(items=1682, title_tokens=12)
    h200 = replace(CHIPS["h100"], speed=replace(CHIPS["h100"].speed, memory=4.8e12))
    for planned in planned_tasks(experiment, jax.devices()[:1], assumed)[-2:]:
        measured = record["sections"]["lm"][0][f"xl {planned.stage} xla+remat"]
        found = speed_of(experiment, planned, work_of(planned), chip=h200, assumed=assumed)
        assert 0.8 < found.step / (measured["step ms"] / 1e3) < 1.19
        assert found.work.useful / 1e12 == pytest.approx(measured["useful TFLOP"], rel=0.02)
        assert found.mfu == pytest.approx(measured["MFU"], rel=0.2)
