import jax.numpy as jnp
import numpy as np
import optax
import pytest

from delrec_jax.errors import UserError
from delrec_jax.training.optimizers import OptimizerConfig, learning_rate_schedule, make_optimizer

START = np.array([1.0, -2.0, 0.5])
GRADS = np.array([[0.3, -0.1, 0.02], [-0.2, -0.4, 5.0], [0.1, 0.2, -3.0]])
FLAT = {"learning_rate": 0.1, "schedule": "constant", "b1": 0.8, "b2": 0.95}


def moved(config, total_steps=10):
    """Where three updates by our optimizer lead."""
    optimizer = make_optimizer(config, total_steps)
    params = jnp.array(START)
    state = optimizer.init(params)
    for grad in GRADS:
        updates, state = optimizer.update(jnp.array(grad), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


def adam_by_hand(grads, decay, rates=(0.1, 0.1, 0.1)):
    x, m, v = START.copy(), 0.0, 0.0
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        direction = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        x = x - rate * (direction + decay * x)
    return x


def lion_by_hand(grads, decay):
    x, m = START.copy(), 0.0
    for g in grads:
        x = x - 0.1 * (np.sign(0.8 * m + 0.2 * g) + decay * x)
        m = 0.95 * m + 0.05 * g
    return x


def test_adam_moves_as_by_hand_and_never_decays():
    config = OptimizerConfig(name="adam", clip=0, weight_decay=0.5, **FLAT)
    np.testing.assert_allclose(moved(config), adam_by_hand(GRADS, 0.0), rtol=1e-5)


def test_adamw_decays_apart_from_the_gradient():
    config = OptimizerConfig(name="adamw", clip=0, weight_decay=0.5, **FLAT)
    np.testing.assert_allclose(moved(config), adam_by_hand(GRADS, 0.5), rtol=1e-5)


def test_lion_moves_by_signs():
    config = OptimizerConfig(name="lion", clip=0, weight_decay=0.5, **FLAT)
    np.testing.assert_allclose(moved(config), lion_by_hand(GRADS, 0.5), rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion"])
def test_each_is_what_optax_calls_by_that_name(name):
    config = OptimizerConfig(name=name, clip=0, warmup_steps=2, learning_rate=0.1)
    rate = learning_rate_schedule(config, 10)
    theirs = {
        "adam": lambda: optax.adam(rate, b1=0.9, b2=0.98),
        "adamw": lambda: optax.adamw(rate, b1=0.9, b2=0.98, weight_decay=0.0),
        "lion": lambda: optax.lion(rate, b1=0.9, b2=0.98, weight_decay=0.0),
    }[name]()
    params, state = jnp.array(START), theirs.init(jnp.array(START))
    for grad in GRADS:
        updates, state = theirs.update(jnp.array(grad), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(moved(config), params)


def test_the_gradient_is_clipped_before_the_moments_see_it():
    norms = np.linalg.norm(GRADS, axis=1, keepdims=True)
    clipped = GRADS * np.minimum(1, 0.5 / norms)
    config = OptimizerConfig(name="adam", clip=0.5, **FLAT)
    np.testing.assert_allclose(moved(config), adam_by_hand(clipped, 0.0), rtol=1e-5)
    assert np.abs(adam_by_hand(clipped, 0.0) - adam_by_hand(GRADS, 0.0)).max() > 1e-3


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedule_ends_at_the_last_step_and_not_before(schedule, warmup):
    config = OptimizerConfig(
        learning_rate=0.5, schedule=schedule, final_fraction=0.1, warmup_steps=warmup
    )
    rate = learning_rate_schedule(config, 24)
    values = np.array([float(rate(step)) for step in range(26)])
    np.testing.assert_allclose(values[: warmup + 1], np.linspace(0, 0.5, 5)[-warmup - 1 :])
    np.testing.assert_allclose(values[24:], 0.05, rtol=1e-6)
    assert (np.diff(values[warmup:25]) < 0).all()
    np.testing.assert_allclose(values[(warmup + 24) // 2], (0.5 + 0.05) / 2, rtol=1e-6)


def test_constant_schedule_stays_at_its_peak():
    rate = learning_rate_schedule(
        OptimizerConfig(learning_rate=0.5, schedule="constant", warmup_steps=2), 6
    )
    np.testing.assert_allclose([float(rate(s)) for s in range(7)], [0, 0.25] + [0.5] * 5)


def test_the_first_update_of_a_warm_up_moves_nothing():
    config = OptimizerConfig(name="lion", learning_rate=0.1, warmup_steps=3, clip=0)
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(
        jnp.array(GRADS[0]), optimizer.init(jnp.array(START)), jnp.array(START)
    )
    np.testing.assert_array_equal(np.abs(updates), 0)


@pytest.mark.parametrize("warmup", [10, 11])
def test_a_warm_up_as_long_as_the_run(warmup):
    with pytest.raises(UserError, match=rf"warmup_steps is {warmup}, but the run has 10 steps"):
        make_optimizer(OptimizerConfig(warmup_steps=warmup), 10)


def test_unknown_names():
    with pytest.raises(UserError, match=r"optimizer\.name is 'sgd'.*adam, adamw, lion"):
        OptimizerConfig(name="sgd")
    with pytest.raises(UserError, match=r"optimizer\.schedule is 'step'.*cosine, linear, constant"):
        OptimizerConfig(schedule="step")
