import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from delrec_jax.training.sharding import MeshConfig, make_mesh
from delrec_jax.training.steps import create_state, make_train_step, mean_loss_gradients

MESH = make_mesh(MeshConfig())
BATCH = {"x": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)}


def linear(params, frozen, batch, key):
    """Losses x . (w + b) with weights 1, 2, 0."""
    return batch["x"] @ (params["w"] + frozen["b"]), jnp.array([1.0, 2.0, 0.0]), {}


def start():
    return {"w": jnp.array([0.5, -0.5])}


FROZEN = {"b": np.array([1.0, 1.0], np.float32)}


def test_one_step_of_sgd_by_hand():
    optimizer = optax.sgd(0.1)
    step = make_train_step(mean_loss_gradients(linear), optimizer, MESH)
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
    step = make_train_step(mean_loss_gradients(linear), optimizer, MESH)
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
    step = make_train_step(drawing, optimizer, MESH)
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
    step = make_train_step(mean_loss_gradients(linear), optimizer, MESH)
    state, _ = step(create_state(start(), optimizer), FROZEN, BATCH, jax.random.key(0))
    expected = np.array([0.5, -0.5]) - 0.1 * (1 + 0.5 * np.array([0.5, -0.5]))
    np.testing.assert_allclose(state.params["w"], expected, rtol=1e-5)
