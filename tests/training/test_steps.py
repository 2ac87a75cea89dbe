import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from unsplit import unsplit

from delrec_jax.delrec.task_weighting import (
    TaskWeighting,
    init_weighting,
    weighted_gradients,
)
from delrec_jax.errors import UserError
from delrec_jax.training.gradients import accumulated, mean_loss_gradients
from delrec_jax.training.optimizers import OptimizerConfig, make_optimizer
from delrec_jax.training.sharding import MeshConfig, make_layout, place, place_batch
from delrec_jax.training.steps import EvalStep, TrainStep, create_state, state_shardings

pytestmark = pytest.mark.exact

LAYOUT = make_layout(MeshConfig(), unsplit)
BATCH = {"x": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)}


def linear(params, frozen, batch, key):
    """Losses x . (w + b) with weights 1, 2, 0."""
    return batch["x"] @ (params["w"] + frozen["b"]), jnp.array([1.0, 2.0, 0.0]), {}


def start():
    return {"w": jnp.array([0.5, -0.5])}


FROZEN = {"b": np.array([1.0, 1.0], np.float32)}


def placed(state, layout):
    return place(state, state_shardings(state, layout))


def test_one_step_of_sgd_by_hand():
    optimizer = optax.sgd(0.1)
    step = TrainStep(mean_loss_gradients(linear), optimizer, LAYOUT)
    state, metrics = step(create_state(start(), optimizer), FROZEN, BATCH, jax.random.key(0))
    grad = np.array([1 + 2 * 3, 2 + 2 * 4]) / 3
    np.testing.assert_allclose(state.params["w"], [0.5, -0.5] - 0.1 * grad, rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(grad), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], (2.5 + 2 * 6.5) / 3, rtol=1e-6)
    assert int(state.step) == 1


def test_a_batch_without_weight_has_no_gradient():
    def nothing(params, frozen, batch, key):
        return batch["x"] @ params["w"], jnp.zeros(3), {}

    grads, metrics = mean_loss_gradients(nothing)(start(), FROZEN, BATCH, jax.random.key(0))
    np.testing.assert_array_equal(grads["w"], 0)
    assert metrics["loss"] == 0


def test_weights_of_another_shape_than_the_losses_are_refused():
    def column(params, frozen, batch, key):  # [3] times [3, 1] would be [3, 3]
        return batch["x"] @ params["w"], jnp.ones((3, 1)), {}

    with pytest.raises(AssertionError, match="different shapes"):
        mean_loss_gradients(column)(start(), FROZEN, BATCH, jax.random.key(0))


def test_a_penalty_has_a_gradient_but_is_not_the_loss():
    def penalised(params, frozen, batch, key):
        losses, weights, _ = linear(params, frozen, batch, key)
        return losses, weights, {"penalty": 10 * (params["w"] ** 2).sum()}

    plain, _ = mean_loss_gradients(linear)(start(), FROZEN, BATCH, jax.random.key(0))
    grads, metrics = mean_loss_gradients(penalised)(start(), FROZEN, BATCH, jax.random.key(0))
    np.testing.assert_allclose(grads["w"] - plain["w"], [10, -10], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], (2.5 + 2 * 6.5) / 3, rtol=1e-6)
    np.testing.assert_allclose(metrics["penalty"], 5)


@pytest.mark.parametrize("where", ["host", "device"])
def test_frozen_weights_are_the_same_bits_afterwards(where):
    table = np.random.default_rng(0).normal(size=2).astype(np.float32)
    frozen = {"b": jnp.array(table) if where == "device" else table.copy()}
    optimizer = optax.adam(0.1)
    step = TrainStep(mean_loss_gradients(linear), optimizer, LAYOUT)
    state = create_state(start(), optimizer)
    for _ in range(3):
        state, _ = step(state, frozen, BATCH, jax.random.key(0))
    assert np.asarray(frozen["b"]).tobytes() == table.tobytes()
    assert set(state.params) == {"w"}  # frozen weights are no part of the state
    assert (np.asarray(state.params["w"]) != np.asarray(start()["w"])).all()


def test_each_step_draws_from_the_run_key_and_its_own_number():
    def drawing(params, frozen, batch, key):
        grads, metrics = mean_loss_gradients(linear)(params, frozen, batch, key)
        return grads, {**metrics, "draw": jax.random.uniform(key)}

    optimizer = optax.sgd(0.1)
    step = TrainStep(drawing, optimizer, LAYOUT)
    state, draws = create_state(start(), optimizer), []
    for _ in range(3):
        state, metrics = step(state, FROZEN, BATCH, jax.random.key(7))
        draws.append(float(metrics["draw"]))
    expected = [
        float(jax.random.uniform(jax.random.fold_in(jax.random.key(7), i))) for i in (0, 1, 2)
    ]
    assert draws == expected and len(set(draws)) == 3


def test_the_step_updates_with_the_present_parameters():
    # Decoupled decay needs them: without, optax raises.
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    step = TrainStep(mean_loss_gradients(linear), optimizer, LAYOUT)
    state, _ = step(create_state(start(), optimizer), FROZEN, BATCH, jax.random.key(0))
    expected = np.array([0.5, -0.5]) - 0.1 * (1 + 0.5 * np.array([0.5, -0.5]))
    np.testing.assert_allclose(state.params["w"], expected, rtol=1e-5)


ROWS, PARTS = 24, (2, 3, 8, 24)


def many_rows():
    """Rows whose weights differ so much that a mean of the parts' means is another number."""
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(ROWS, 4)).astype(np.float32),
        "y": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "weight": (10 ** rng.uniform(-2, 1, (ROWS, 3)) * (rng.random((ROWS, 3)) < 0.6)).astype(
            np.float32
        ),
        "task": (np.arange(ROWS) % 3 == 0).astype(np.int32),
    }


def network():
    rng = np.random.default_rng(1)
    inner, outer = rng.normal(size=(4, 6)), rng.normal(size=(6, 3))
    return {"inner": jnp.array(inner, jnp.float32), "outer": jnp.array(outer, jnp.float32)}


def errors(params, frozen, batch, key):
    """A loss of three values a row, a penalty on the parameters, and something to log."""
    found = jnp.tanh(batch["x"] * frozen @ params["inner"]) @ params["outer"]
    metrics = {"penalty": 0.1 * (params["inner"] ** 2).sum(), "mean_x": batch["x"].mean()}
    return (found - batch["y"]) ** 2, batch["weight"], metrics


FACTOR = jnp.float32(0.5)


def test_parts_by_hand():
    # Rows (1, 2), (3, 4), (5, 6), (7, 8) with weights 1, 2, 0, 1; the parts are rows 0, 2 and rows 1, 3.
    def four(params, frozen, batch, key):
        return batch["x"] @ (params["w"] + frozen["b"]), batch["weight"], {}

    batch = {
        "x": np.arange(1, 9, dtype=np.float32).reshape(4, 2),
        "weight": np.array([1.0, 2.0, 0.0, 1.0], np.float32),
    }
    grads, metrics = mean_loss_gradients(four, 2)(start(), FROZEN, batch, jax.random.key(0))
    np.testing.assert_allclose(grads["w"], [(1 + 2 * 3 + 7) / 4, (2 + 2 * 4 + 8) / 4], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], (2.5 + 2 * 6.5 + 14.5) / 4, rtol=1e-6)


@pytest.mark.parametrize("parts", PARTS)
def test_parts_are_the_large_batch(parts):
    args = (network(), FACTOR, many_rows(), jax.random.key(0))
    grads, metrics = jax.jit(mean_loss_gradients(errors))(*args)
    found, found_metrics = jax.jit(mean_loss_gradients(errors, parts))(*args)
    chex.assert_trees_all_close(found, grads, rtol=2e-6, atol=2e-7)
    chex.assert_trees_all_close(found_metrics, metrics, rtol=1e-6)


def test_a_mean_of_means_is_another_gradient():
    batch, key = many_rows(), jax.random.key(0)
    whole, _ = mean_loss_gradients(errors)(network(), FACTOR, batch, key)
    halves = [jax.tree.map(lambda leaf, i=i: leaf[i::2], batch) for i in (0, 1)]
    one, two = (mean_loss_gradients(errors)(network(), FACTOR, half, key)[0] for half in halves)
    naive = (one["outer"] + two["outer"]) / 2
    assert (
        np.abs(np.asarray(naive - whole["outer"])).max() > 0.03
    )  # 10,000 times what is allowed above


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_without_weight_have_no_gradient(parts):
    batch = many_rows() | {"weight": np.zeros((ROWS, 3), np.float32)}

    def unpenalised(*args):
        return *errors(*args)[:2], {}

    grads, metrics = mean_loss_gradients(unpenalised, parts)(
        network(), FACTOR, batch, jax.random.key(0)
    )
    assert metrics["loss"] == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("kind", ["fixed", "gradient_norm", "uncertainty"])
def test_parts_of_two_weighted_tasks_are_the_large_batch(kind):
    config = TaskWeighting(kind, (("ta", 0.3), ("rps", 0.7)))

    def task_sums(params, frozen, batch, key):
        losses, _, _ = errors(params, frozen, batch, key)
        members = jnp.stack([batch["task"] == 1, batch["task"] == 0]).astype(jnp.float32)
        return members @ losses.sum(1), members.sum(1), {}

    def gradients(params, parts):
        def task_losses(params):
            sums, weights, _ = accumulated(task_sums, parts)(
                params, FACTOR, many_rows(), jax.random.key(0)
            )
            return sums / jnp.maximum(weights, 1), weights

        return weighted_gradients(task_losses, params, config)

    params = {**network(), **init_weighting(config)}
    expected = gradients(params, 1)
    found = jax.jit(gradients, static_argnums=1)(params, 4)
    chex.assert_trees_all_close(found, expected, rtol=2e-6, atol=1e-6)


def steps_in_parts(parts, layout):
    """Parameters and losses of six clipped steps of AdamW."""
    config = OptimizerConfig(learning_rate=0.05, weight_decay=0.1, clip=0.5, warmup_steps=1)
    optimizer = make_optimizer(config, 6)
    step = TrainStep(mean_loss_gradients(errors, parts), optimizer, layout)
    state = placed(create_state(network(), optimizer), layout)
    rows, losses = place_batch(many_rows(), layout), []
    for _ in range(6):
        state, metrics = step(state, FACTOR, rows, jax.random.key(3))
        losses.append(float(metrics["loss"]))
    return {"losses": losses, **{name: leaf.tolist() for name, leaf in state.params.items()}}


def test_training_in_parts_is_training_with_the_large_batch():
    whole, parts = steps_in_parts(1, LAYOUT), steps_in_parts(3, LAYOUT)
    assert whole["losses"][-1] < whole["losses"][0]
    chex.assert_trees_all_close(parts, whole, rtol=0, atol=2e-6)


def test_each_part_draws_from_the_step_key_and_its_own_number():
    def drawing(params, frozen, batch, key):
        losses, weights, _ = errors(params, frozen, batch, key)
        return losses, weights, {"draw": jax.random.uniform(key)}

    key = jax.random.key(7)
    args = (network(), FACTOR, many_rows(), key)
    draws = [float(jax.random.uniform(jax.random.fold_in(key, part))) for part in range(4)]
    _, metrics = mean_loss_gradients(drawing, 4)(*args)
    np.testing.assert_allclose(metrics["draw"], np.mean(draws), rtol=1e-6)
    _, metrics = mean_loss_gradients(drawing)(*args)
    np.testing.assert_array_equal(metrics["draw"], jax.random.uniform(key))


def test_one_part_is_the_function_itself():
    assert accumulated(errors, 1) is errors


def test_rows_that_do_not_divide_into_the_parts():
    gradients = jax.jit(mean_loss_gradients(errors, 5))
    with pytest.raises(UserError, match=r"optimizer\.accumulate is 5, but a batch has 24 rows"):
        gradients(network(), FACTOR, many_rows(), jax.random.key(0))


def test_small_parameters_are_added_up_in_float32():
    # 512 gradients of 1 added in bfloat16 stop at 256.
    def ones(params, frozen, batch, key):
        return batch["x"] * params["w"], jnp.ones(len(batch["x"])), {}

    batch = {"x": np.ones(512, np.float32)}
    params = {"w": jnp.bfloat16(0.5)}
    grads, _ = mean_loss_gradients(ones, 512)(params, None, batch, jax.random.key(0))
    assert grads["w"].dtype == jnp.bfloat16 and grads["w"] == 1


def test_parts_need_the_memory_of_one():
    def wide(params, frozen, batch, key):
        hidden = batch["x"]
        for _ in range(12):
            hidden = jnp.tanh(hidden @ params["w"])
        return hidden.sum(1), jnp.ones(len(hidden)), {}

    def temporary(parts):
        args = (params, None, batch, jax.random.key(0))
        compiled = jax.jit(mean_loss_gradients(wide, parts)).lower(*args).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    params = {"w": jnp.ones((64, 64))}
    batch = {"x": jnp.ones((4096, 64))}
    # An activation is 1 MiB, of a part 1 / 16 of it; beside the parts there is the batch in their order.
    assert temporary(1) > 12 * 2**20 and temporary(16) < 3 * 2**20


def report():
    """What eight devices do, for the process that started this one."""
    layout = make_layout(MeshConfig(data=-1, fsdp=2), unsplit)
    optimizer = make_optimizer(OptimizerConfig(), 6)
    state = placed(create_state(network(), optimizer), layout)
    step = TrainStep(mean_loss_gradients(errors, 3), optimizer, layout)
    batch = place_batch(many_rows(), layout)
    odd = np.arange(10.0, dtype=np.float32)
    doubled = EvalStep(lambda held, rows: held["by"] * rows, layout)
    text = step.lower(state, FACTOR, batch, jax.random.key(3)).compile().as_text()
    moves = ("all-gather", "all-to-all", "collective-permute", "all-reduce")
    return {
        "devices": jax.device_count(),
        "three parts": steps_in_parts(3, layout),
        "doubled": doubled({"by": np.float32(2)}, odd).tolist(),
        "moves": [name for name in moves if f" {name}(" in text],
    }


def test_eight_devices_add_up_the_same_and_keep_their_rows(on_devices):
    eight = on_devices(__file__, quick=False)
    assert eight["devices"] == 8 and eight["moves"] == ["all-reduce"]
    # Ten rows do not divide over eight devices: an evaluation fills them up, and takes the filling off again.
    assert eight["doubled"] == (2 * np.arange(10.0)).tolist()
    chex.assert_trees_all_close(eight["three parts"], steps_in_parts(1, LAYOUT), rtol=0, atol=5e-6)


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_batches_of_any_size_give_every_row_once(size):
    tripled = EvalStep(lambda held, rows: held["by"] * rows["x"], LAYOUT)
    rows = {"x": np.arange(14.0, dtype=np.float32).reshape(7, 2)}
    found = tripled.in_batches({"by": jnp.array(3.0)}, rows, size)
    np.testing.assert_array_equal(found, 3 * rows["x"])


if __name__ == "__main__":
    print(json.dumps(report()))
