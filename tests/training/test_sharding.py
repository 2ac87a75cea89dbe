import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.training.optimizers import OptimizerConfig, make_optimizer
from delrec_jax.training.sharding import MeshConfig, make_mesh, place_batch, replicated
from delrec_jax.training.steps import create_state, make_train_step, mean_loss_gradients


def train(mesh):
    """Six steps of a small network with dropout; parameters and losses as lists."""
    rng = np.random.default_rng(0)

    def loss(params, frozen, batch, key):
        hidden = jnp.tanh(batch["x"] @ frozen @ params["inner"])
        hidden = hidden * jax.random.bernoulli(key, 0.8, hidden.shape)
        error = (hidden @ params["outer"] - batch["y"]) ** 2
        return error, (batch["y"] > -1).astype(jnp.float32), {}

    params = {"inner": jnp.array(rng.normal(size=(4, 6)), jnp.float32), "outer": jnp.ones(6)}
    frozen = jnp.array(rng.normal(size=(3, 4)), jnp.float32)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.05, warmup_steps=1), 6)
    state = jax.device_put(create_state(params, optimizer), replicated(mesh))
    step = make_train_step(mean_loss_gradients(loss), optimizer, mesh)
    losses = []
    for _ in range(6):
        batch = {"x": rng.normal(size=(16, 3)), "y": rng.normal(size=16)}
        batch = {name: value.astype(np.float32) for name, value in batch.items()}
        state, metrics = step(state, frozen, place_batch(batch, mesh), jax.random.key(3))
        losses.append(float(metrics["loss"]))
    return {"losses": losses, **{name: value.tolist() for name, value in state.params.items()}}


def error_of(function, *args):
    try:
        function(*args)
    except UserError as error:
        return str(error)
    return ""


def report():
    """What eight devices do, for the process that started this one."""
    mesh = make_mesh(MeshConfig(data=-1, fsdp=2))
    placed = place_batch(np.arange(16), mesh)
    return {
        "devices": jax.device_count(),
        "shape": dict(mesh.shape),
        "shards": [shard.data.tolist() for shard in placed.addressable_shards],
        "tensor": place_batch(np.arange(8), make_mesh(MeshConfig(data=4, tensor=2)))
        .addressable_shards[0]
        .data.shape[0],
        "data": train(make_mesh(MeshConfig())),
        "data and fsdp": train(mesh),
        "odd batch": error_of(place_batch, np.zeros(12), mesh),
        "three": error_of(make_mesh, MeshConfig(data=3)),
        "too few": error_of(make_mesh, MeshConfig(data=2, fsdp=2)),
        "odd rest": error_of(make_mesh, MeshConfig(data=-1, fsdp=3)),
    }


@pytest.fixture(scope="module")
def eight():
    flags = "--xla_force_host_platform_device_count=8"
    run = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("layout", ["data", "data and fsdp"])
def test_eight_devices_train_as_one(eight, layout):
    assert eight["devices"] == 8
    one = jax.make_mesh(
        (1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
        devices=jax.devices("cpu")[:1],
    )
    alone = train(one)
    assert alone["losses"][-1] < alone["losses"][0]
    for name, values in alone.items():
        np.testing.assert_allclose(eight[layout][name], values, atol=1e-5, err_msg=name)


def test_a_batch_is_split_over_data_and_fsdp_alone(eight):
    assert eight["shape"] == {"data": 4, "fsdp": 2, "tensor": 1}
    assert sorted(eight["shards"]) == [[2 * i, 2 * i + 1] for i in range(8)]
    assert eight["tensor"] == 2


def test_layouts_and_batches_that_do_not_divide(eight):
    assert "a batch of 12 rows does not divide over 8 devices" in eight["odd batch"]
    for name in ("three", "too few", "odd rest"):
        assert "8 devices cannot be laid out so" in eight[name]


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(data=0),
        MeshConfig(data=-2),
        MeshConfig(data=-1, fsdp=-1),
        MeshConfig(data=-1, fsdp=jax.device_count() + 1),
    ],
)
def test_impossible_meshes(config):
    with pytest.raises(UserError, match="must multiply to it, one may be -1"):
        make_mesh(config)


if __name__ == "__main__":
    print(json.dumps(report()))
