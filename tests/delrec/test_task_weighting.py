from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from delrec_jax.config import DistillConfig, TaskShare
from delrec_jax.delrec.task_weighting import TaskWeighting, init_weighting, weighted_gradients
from delrec_jax.errors import UserError

# L_TA = 3 x0^2 + 4 x1 and L_RPS = x0 x1 at x = (1, 2): gradients (6, 4) and (2, 1), losses 11, 2.
PROMPT = jnp.array([1.0, 2.0])
TA, RPS = np.array([6.0, 4.0]), np.array([2.0, 1.0])
LOSSES = np.array([11.0, 2.0])
LEAST = 1e-4  # what `uncertainty` adds to every loss


def weighting(kind="fixed", ta=0.2):
    return TaskWeighting(kind, (("ta", ta), ("rps", 1 - ta)))


def losses_of(params):
    x, y = params["prompt"]
    return jnp.stack([3 * x**2 + 4 * y, x * y])


def task_losses(params, texts=(5.0, 3.0)):
    """A task without texts has loss 0, as stage 1 gives it."""
    texts = jnp.array(texts)
    return jnp.where(texts > 0, losses_of(params), 0.0), texts


def run(config, texts=(5.0, 3.0), **more):
    params = {"prompt": PROMPT, **init_weighting(config), **more}
    losses = partial(task_losses, texts=texts)
    return jax.jit(lambda p: weighted_gradients(losses, p, config))(params)


def test_fixed():
    grads, metrics = run(weighting())
    assert set(grads) == {"prompt"}
    np.testing.assert_allclose(grads["prompt"], 0.2 * TA + 0.8 * RPS, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], 0.2 * 11 + 0.8 * 2, rtol=1e-6)
    np.testing.assert_allclose([metrics["loss/ta"], metrics["loss/rps"]], LOSSES)
    np.testing.assert_allclose(metrics["weight/ta"], 0.2)


@pytest.mark.parametrize(("share", "expected"), [(1.0, TA), (0.0, RPS)])
def test_fixed_at_its_ends_is_one_task_alone(share, expected):
    grads, _ = run(weighting(ta=share))
    np.testing.assert_allclose(grads["prompt"], expected)


def test_gradient_norm_weights_by_the_inverse_square_root():
    grads, metrics = run(weighting("gradient_norm"))
    inverse = np.array([np.linalg.norm(TA), np.linalg.norm(RPS)]) ** -0.5
    w = inverse / inverse.sum()
    np.testing.assert_allclose(metrics["weight/ta"], w[0], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], w @ LOSSES, rtol=1e-6)
    np.testing.assert_allclose(grads["prompt"], w[0] * TA + w[1] * RPS, rtol=1e-6)


def test_gradient_norm_does_not_differentiate_its_weights():
    def with_gradient_through_weights(x):
        per_task = jax.jacrev(lambda v: losses_of({"prompt": v}))(x)
        inverse = jnp.linalg.norm(per_task, axis=1) ** -0.5
        return (inverse / inverse.sum() * losses_of({"prompt": x})).sum()

    wrong = jax.grad(with_gradient_through_weights)(PROMPT)
    grads, _ = run(weighting("gradient_norm"))
    assert np.abs(np.asarray(wrong - grads["prompt"])).max() > 0.1


@pytest.mark.parametrize("kind", ["gradient_norm", "uncertainty"])
def test_a_task_without_texts_gets_no_weight(kind):
    grads, metrics = run(weighting(kind), texts=(0.0, 3.0))
    assert metrics["weight/ta"] == 0 and metrics["weight/rps"] == 1
    np.testing.assert_allclose(grads["prompt"], RPS, rtol=1e-6)
    if kind == "uncertainty":
        # Else its log-variance would fall for ever, and its weight grow to infinity.
        np.testing.assert_allclose(grads["log_variance"], [0, 1 - 2 - LEAST], rtol=1e-6)


@pytest.mark.parametrize("texts", [(5.0, 3.0), (0.0, 3.0)], ids=["both", "alone"])
@pytest.mark.parametrize("kind", ["gradient_norm", "uncertainty"])
def test_a_task_that_is_learned_completely_leaves_the_weight_to_the_other(kind, texts):
    """RPS has loss 0 and no gradient: it must neither take all the weight nor drive its log-variance to infinity."""
    config, optimizer = weighting(kind), optax.adam(0.1)

    def losses(params):
        per_task, count = task_losses(params, texts)
        return per_task * jnp.array([1.0, 0.0]), count

    def step(carry, _):
        params, state = carry
        grads, metrics = weighted_gradients(losses, params, config)
        updates, state = optimizer.update(grads, state)
        # The prompt stays where it is, so that TA is never learned.
        moved = optax.apply_updates(params, updates) | {"prompt": PROMPT}
        return (moved, state), metrics

    params = {"prompt": PROMPT, **init_weighting(config)}
    (params, _), metrics = jax.lax.scan(step, (params, optimizer.init(params)), length=2000)
    chex.assert_tree_all_finite((params, metrics))
    if kind == "gradient_norm":
        assert (metrics["weight/rps"] == 0).all()
        assert (metrics["weight/ta"] == (texts[0] > 0)).all()
    else:
        np.testing.assert_allclose(params["log_variance"][1], np.log(LEAST), atol=0.01)


def test_three_tasks_share_the_weight():
    config = DistillConfig(
        tasks={
            "ta": TaskShare(share=1, weight=1),
            "rps": TaskShare(share=1, weight=2),
            "toy": TaskShare(share=1, weight=1),
        }
    )
    found = TaskWeighting.of(config, ("ta", "rps", "toy"))
    assert found.weights == (("ta", 0.25), ("rps", 0.5), ("toy", 0.25))
    for kind in ("fixed", "gradient_norm", "uncertainty"):
        three = TaskWeighting(kind, found.weights)

        def losses(params):
            x, y = params["prompt"]
            return jnp.stack([3 * x**2 + 4 * y, x * y, y**2]), jnp.ones(3)

        params = {"prompt": PROMPT, **init_weighting(three)}
        grads, metrics = weighted_gradients(losses, params, three)
        weights = np.array([metrics[f"weight/{name}"] for name in three.names])
        scale = 3 if kind == "uncertainty" else 1  # exp(-0) each, logged as shares
        expected = scale * weights @ np.array([TA, RPS, [0, 4]])
        np.testing.assert_allclose(grads["prompt"], expected, rtol=1e-6)
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_uncertainty():
    spread = jnp.array([0.5, -1.0])
    grads, metrics = run(weighting("uncertainty"), log_variance=spread)
    w = np.exp([-0.5, 1.0])
    np.testing.assert_allclose(grads["prompt"], w[0] * TA + w[1] * RPS, rtol=1e-6)
    np.testing.assert_allclose(grads["log_variance"], 1 - w * (LOSSES + LEAST), rtol=1e-6)
    np.testing.assert_allclose(metrics["weight/ta"], w[0] / w.sum(), rtol=1e-6)


def test_uncertainty_settles_at_the_logarithm_of_the_losses():
    spread = jnp.log(jnp.array(LOSSES + LEAST))
    grads, _ = run(weighting("uncertainty"), log_variance=spread)
    np.testing.assert_allclose(grads["log_variance"], 0, atol=1e-6)


def test_only_uncertainty_trains_something():
    assert init_weighting(weighting()) == {}
    assert init_weighting(weighting("gradient_norm")) == {}
    start = init_weighting(weighting("uncertainty"))
    np.testing.assert_array_equal(start["log_variance"], [0, 0])


def test_bad_settings():
    with pytest.raises(UserError, match=r"distill\.weighting is 'equal'.*gradient_norm"):
        DistillConfig(weighting="equal")
    for share in (-0.1, float("nan")):
        with pytest.raises(UserError, match=rf"distill\.tasks\.ta\.weight is {share}"):
            DistillConfig(tasks={"rps": TaskShare(1, 1), "ta": TaskShare(1, share)})
    with pytest.raises(UserError, match=r"distill\.tasks has no 'rps'"):
        DistillConfig(tasks={"ta": TaskShare(share=1, weight=1)})
    with pytest.raises(UserError, match=r"every share is 0"):
        DistillConfig(tasks={"rps": TaskShare(weight=1)})
