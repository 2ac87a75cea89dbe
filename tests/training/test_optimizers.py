import jax.numpy as jnp
import numpy as np
import optax
import pytest

from delrec_jax.errors import UserError
from delrec_jax.training.optimizers import (
    OptimizerConfig,
    learning_rate_schedule,
    make_optimizer,
    planned_steps,
)

START = np.array([1.0, -2.0, 0.5])
GRADS = np.array([[0.3, -0.1, 0.02], [-0.2, -0.4, 5.0], [0.1, 0.2, -3.0]])
FLAT = {"learning_rate": 0.1, "schedule": "constant", "b1": 0.8, "b2": 0.95}


def moved(config, total_steps=10, grads=GRADS, start=START):
    """Where updates by our optimizer lead."""
    optimizer = make_optimizer(config, total_steps)
    params = jnp.array(start)
    state = optimizer.init(params)
    for grad in grads:
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


def test_the_order_of_clip_and_update_by_hand():
    # Clipped first, the moment is 0.02 after the gradient 10 -> 1; 0.9 x 0.02 + 0.1 x -0.5 is negative: one step
    # down, one up. Were only Lion's update clipped (it is 0.1 long at most), the moment were 0.2: two steps down.
    config = OptimizerConfig(
        name="lion", learning_rate=0.1, schedule="constant", clip=1.0, b1=0.9, b2=0.98
    )
    grads = np.array([[10.0], [-0.5]])
    np.testing.assert_allclose(moved(config, grads=grads, start=np.zeros(1)), [0.0], atol=1e-7)
    unclipped = OptimizerConfig(
        name="lion", learning_rate=0.1, schedule="constant", clip=0, b1=0.9, b2=0.98
    )
    np.testing.assert_allclose(moved(unclipped, grads=grads, start=np.zeros(1)), [-0.2], rtol=1e-6)


def test_lion_is_the_papers_algorithm_with_the_methods_settings():
    """Chen et al. (2023), Algorithm 2, with the schedule and the clip of method.md at a twentieth of its length."""
    config = OptimizerConfig(
        name="lion", learning_rate=5e-3, weight_decay=1e-5, schedule="linear", final_fraction=0.0,
        warmup_steps=20, clip=2.0, b1=0.9, b2=0.99,
    )  # fmt: skip
    grads = np.random.default_rng(0).normal(size=(40, 7)) * 2
    x = start = np.random.default_rng(1).normal(size=7)
    m = np.zeros(7)
    for t, g in enumerate(grads):
        g = g * min(1, 2.0 / np.linalg.norm(g))
        rate = 5e-3 * (t / 20 if t < 20 else (40 - t) / 20)
        x = x - rate * (np.sign(0.9 * m + 0.1 * g) + 1e-5 * x)
        m = 0.99 * m + 0.01 * g
    np.testing.assert_allclose(moved(config, 40, grads, start), x, atol=1e-6)
    assert np.abs(x - start).max() > 5e-3


@pytest.mark.parametrize(("peak", "warmup", "total"), [(5e-3, 400, 800), (1e-4, 800, 1400)])
def test_the_methods_schedules_end_at_zero(peak, warmup, total):
    config = OptimizerConfig(
        learning_rate=peak, warmup_steps=warmup, schedule="linear", final_fraction=0.0
    )
    rate = learning_rate_schedule(config, total)
    values = [float(rate(step)) for step in (0, warmup // 2, warmup, total - 1, total)]
    expected = [0, peak / 2, peak, peak / (total - warmup), 0]
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=0)


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


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_schedule_ends_at_a_share_of_its_peak(share):
    with pytest.raises(UserError, match=rf"optimizer\.final_fraction is {share}.*from 0 to 1"):
        OptimizerConfig(final_fraction=share)


def test_a_batch_has_at_least_one_part():
    with pytest.raises(UserError, match=r"optimizer\.accumulate is 0: it must be at least 1"):
        OptimizerConfig(accumulate=0)


def test_the_plan_is_found_in_the_state_and_inside_wrappers():
    params = {"prompt": jnp.zeros(3), "head": jnp.zeros(2)}
    ten, twelve = (make_optimizer(OptimizerConfig(), steps) for steps in (10, 12))
    wrapped = optax.partition({"a": ten, "b": twelve}, {"prompt": "a", "head": "b"})
    assert planned_steps(ten.init(params)) == {10}
    assert planned_steps(wrapped.init(params)) == {10, 12}
    assert planned_steps(optax.adam(0.1).init(params)) == set()


def test_the_plan_outlives_the_updates():
    optimizer = make_optimizer(OptimizerConfig(), 10)
    _, state = optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)), jnp.ones(3))
    assert planned_steps(state) == {10}
