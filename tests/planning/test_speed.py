"""What a step computes, and how long exchanges take, against figures worked by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from delrec_jax.planning.chips import CHIPS
from delrec_jax.planning.exchange import Grid
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
