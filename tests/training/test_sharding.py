import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from unsplit import unsplit

from delrec_jax.batches import WHOLE, Share
from delrec_jax.errors import UserError
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.mesh import MeshConfig, make_mesh, mesh_sizes, parse_rules
from delrec_jax.training.optimizers import OptimizerConfig, make_optimizer
from delrec_jax.training.sharding import (
    make_layout,
    own_share,
    place,
    place_batch,
)
from delrec_jax.training.steps import EvalStep, TrainStep, create_state, state_shardings

pytestmark = pytest.mark.exact


def axes_of(path, shape):
    """Named as a language model's kernels are; all else is whole."""
    return {"inner": ("embed", "mlp"), "outer": ("mlp",)}.get(path[-1], (None,) * len(shape))


def train(layout):
    """Six steps of a small network with dropout; parameters and losses as lists, and where the parameters lie."""
    rng = np.random.default_rng(0)

    def loss(params, frozen, batch, key):
        hidden = jnp.tanh(batch["x"] @ frozen["features"] @ params["inner"])
        hidden = hidden * jax.random.bernoulli(key, 0.8, hidden.shape)
        error = (hidden @ params["outer"] - batch["y"]) ** 2
        return error, (batch["y"] > -1).astype(jnp.float32), {}

    params = {"inner": rng.normal(size=(4, 6)).astype(np.float32), "outer": jnp.ones(6)}
    frozen = {"features": rng.normal(size=(3, 4)).astype(np.float32)}
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.05, warmup_steps=1), 6)
    state = create_state(params, optimizer)
    state = place(state, state_shardings(state, layout))
    step = TrainStep(mean_loss_gradients(loss), optimizer, layout)
    losses = []
    for _ in range(6):
        batch = {"x": rng.normal(size=(16, 3)), "y": rng.normal(size=16)}
        batch = {name: value.astype(np.float32) for name, value in batch.items()}
        state, metrics = step(state, frozen, place_batch(batch, layout), jax.random.key(3))
        losses.append(float(metrics["loss"]))
    moments = jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, dict))
    pieces = [
        part["inner"].addressable_shards[0].data.shape for part in moments if isinstance(part, dict)
    ]
    return {
        "losses": losses,
        **{name: value.tolist() for name, value in state.params.items()},
        "piece": state.params["inner"].addressable_shards[0].data.shape,
        "pieces of moments": pieces,
    }


def error_of(function, *args):
    try:
        function(*args)
    except UserError as error:
        return str(error)
    return ""


def specs(layout):
    """Where arrays of some shapes go."""
    shapes = {"even": (4, 6), "odd columns": (4, 7), "odd": (3, 5)}
    return {name: str(layout.spec(("inner",), shape)) for name, shape in shapes.items()}


def report():
    """What eight devices do, for the process that started this one."""
    layouts = {
        "data": make_layout(MeshConfig(), axes_of),
        "fsdp": make_layout(MeshConfig(data=1, fsdp=8), unsplit),
        "all three": make_layout(MeshConfig(data=2, fsdp=2, tensor=2), axes_of),
    }
    wide = make_layout(MeshConfig(data=-1, fsdp=2), axes_of)
    placed = place_batch(np.arange(16), wide)
    seen = EvalStep(lambda held, rows: held["w"] * rows, wide)
    return {
        "devices": jax.device_count(),
        "shape": dict(wide.mesh.shape),
        "shards": [shard.data.tolist() for shard in placed.addressable_shards],
        "tensor": place_batch(np.arange(8), make_layout(MeshConfig(data=4, tensor=2), unsplit))
        .addressable_shards[0]
        .data.shape[0],
        "trained": {name: train(layout) for name, layout in layouts.items()},
        "specs": specs(layouts["all three"]),
        "share": own_share(layouts["data"], 32),
        "seen": seen({"w": np.float32(3)}, np.arange(5, dtype=np.float32)).tolist(),
        "odd batch": error_of(place_batch, np.zeros(12), wide),
        "odd share": error_of(own_share, wide, 12),
        "three": error_of(make_mesh, MeshConfig(data=3)),
    }


@pytest.fixture(scope="module")
def eight(on_devices):
    return on_devices(__file__, quick=False)


@pytest.mark.parametrize("layout", ["data", "fsdp", "all three"])
def test_eight_devices_train_as_one(eight, layout):
    assert eight["devices"] == 8
    alone, found = train(make_layout(MeshConfig(), axes_of)), eight["trained"][layout]
    assert alone["losses"][-1] < alone["losses"][0]
    for name in ("losses", "inner", "outer"):
        np.testing.assert_allclose(found[name], alone[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("held", "share"),
    [
        ((0, 3, 5, 6), Share((0, 3, 5, 6), 8)),  # the torus of a TPU
        ((2, 3), Share((1,), 4)),
        ((3, 4), Share((3, 4), 8)),
        (tuple(range(8)), WHOLE),
    ],
)
def test_a_process_provides_the_rows_that_its_devices_hold(held, share, monkeypatch):
    places = {device: (slice(2 * device, 2 * device + 2),) for device in held}
    home = SimpleNamespace(addressable_devices_indices_map=lambda shape: places)
    layout = SimpleNamespace(ways=8, batch=home)
    assert own_share(layout, 16) == share

    def pieces(shape, sharding, piece):
        return shape, [piece(place).tolist() for place in places.values()]

    monkeypatch.setattr(jax, "make_array_from_callback", pieces)
    shape, placed = place_batch(np.arange(16)[share.rows(16)], layout, share)
    assert shape == (16,) and placed == [[2 * device, 2 * device + 1] for device in held]


def test_weights_and_their_moments_are_split_alike(eight):
    assert eight["trained"]["data"]["piece"] == [4, 6]
    assert eight["trained"]["all three"]["piece"] == [2, 3]
    assert eight["trained"]["all three"]["pieces of moments"] == [[2, 3]] * 2


def test_an_axis_that_does_not_divide_stays_whole(eight):
    assert eight["specs"] == {
        "even": str(PartitionSpec("fsdp", "tensor")),
        "odd columns": str(PartitionSpec("fsdp")),
        "odd": str(PartitionSpec()),
    }


def test_a_batch_is_split_over_data_and_fsdp_alone(eight):
    assert eight["shape"] == {"data": 4, "fsdp": 2, "tensor": 1}
    assert sorted(eight["shards"]) == [[2 * i, 2 * i + 1] for i in range(8)]
    assert eight["tensor"] == 2
    assert eight["share"] == [[0], 1]


def test_an_evaluation_may_have_any_number_of_rows(eight):
    assert eight["seen"] == [0, 3, 6, 9, 12]


def test_layouts_and_batches_that_do_not_divide(eight):
    for name in ("odd batch", "odd share"):
        assert "a batch of 12 rows does not divide over 8 devices" in eight[name]
    assert "8 devices cannot be laid out as data 3, fsdp 1, tensor 1" in eight["three"]


@pytest.mark.parametrize(
    ("config", "devices", "sizes"),
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(data=2, fsdp=-1, tensor=2), 64, (2, 16, 2)),
        (MeshConfig(data=1, fsdp=1, tensor=1), 1, (1, 1, 1)),
    ],
)
def test_sizes_of_meshes(config, devices, sizes):
    assert mesh_sizes(config, devices) == sizes


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(data=0),
        MeshConfig(data=-2),
        MeshConfig(data=-1, fsdp=-1),
        MeshConfig(data=2, fsdp=2),
        MeshConfig(data=-1, fsdp=3),
    ],
)
def test_impossible_meshes(config):
    with pytest.raises(UserError, match="must multiply to that number, and one may be -1"):
        mesh_sizes(config, 8)


def test_rules_in_their_own_words():
    assert parse_rules(("vocab: fsdp, tensor", "rank:")) == {
        "vocab": ("fsdp", "tensor"),
        "rank": (),
    }


@pytest.mark.parametrize("rule", ["vocab", "vocab: rows", ": data", "batch: data, model"])
def test_a_rule_that_cannot_be_read(rule):
    with pytest.raises(UserError, match=r"mesh\.rules has .*vocab: fsdp, tensor"):
        MeshConfig(rules=(rule,))


def test_two_rules_for_one_axis():
    with pytest.raises(UserError, match="each logical axis has one"):
        MeshConfig(rules=("mlp: tensor", "mlp: fsdp"))


def test_what_an_optimizer_keeps_beside_the_parameters_must_have_a_place():
    layout = make_layout(MeshConfig(), axes_of)
    params = {"inner": jnp.ones((4, 6))}
    stray = {"moments": params, "history": jnp.ones(5)}
    with pytest.raises(ValueError, match="no sharding is stated for history"):
        layout.of_optimizer(stray, params)
    state = optax.adam(1e-3).init(params)
    assert layout.of_optimizer(state, params)[0].mu["inner"].spec == PartitionSpec()


def test_names_for_too_few_axes_are_refused():
    layout = make_layout(MeshConfig(), lambda path, shape: ("embed",))
    with pytest.raises(ValueError, match=r"a/b: axes \('embed',\) for the shape \(2, 3\)"):
        layout.of({"a": {"b": np.zeros((2, 3))}})


def test_place_copies():
    layout = make_layout(MeshConfig(), unsplit)
    tree = {"w": np.zeros(3, np.float32)}
    placed = place(tree, layout.of(tree))
    tree["w"][:] = 7
    np.testing.assert_array_equal(placed["w"], 0)


if __name__ == "__main__":
    print(json.dumps(report()))
