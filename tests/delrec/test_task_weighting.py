import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.delrec.task_weighting import (
    WeightingConfig,
    init_weighting,
    weighted_gradients,
)
from delrec_jax.errors import UserError

# L_TA = 3 x0^2 + 4 x1 and L_RPS = x0 x1 at x = (1, 2): gradients (6, 4) and (2, 1), losses 11, 2.
PROMPT = jnp.array([1.0, 2.0])
TA, RPS = np.array([6.0, 4.0]), np.array([2.0, 1.0])
LOSSES = np.array([11.0, 2.0])


def task_losses(params):
    x, y = params["prompt"]
    return jnp.stack([3 * x**2 + 4 * y, x * y])


def run(config, **more):
    params = {"prompt": PROMPT, **init_weighting(config), **more}
    return jax.jit(lambda p: weighted_gradients(task_losses, p, config))(params)


def test_fixed():
    grads, metrics = run(WeightingConfig(kind="fixed", ta_weight=0.2))
    assert set(grads) == {"prompt"}
    np.testing.assert_allclose(grads["prompt"], 0.2 * TA + 0.8 * RPS, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], 0.2 * 11 + 0.8 * 2, rtol=1e-6)
    np.testing.assert_allclose([metrics["loss/ta"], metrics["loss/rps"]], LOSSES)
    np.testing.assert_allclose(metrics["weight/ta"], 0.2)


@pytest.mark.parametrize(("share", "expected"), [(1.0, TA), (0.0, RPS)])
def test_fixed_at_its_ends_is_one_task_alone(share, expected):
    grads, _ = run(WeightingConfig(ta_weight=share))
    np.testing.assert_allclose(grads["prompt"], expected)


def test_gradient_norm_weights_by_the_inverse_square_root():
    grads, metrics = run(WeightingConfig(kind="gradient_norm"))
    inverse = np.array([np.linalg.norm(TA), np.linalg.norm(RPS)]) ** -0.5
    w = inverse / inverse.sum()
    np.testing.assert_allclose(metrics["weight/ta"], w[0], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], w @ LOSSES, rtol=1e-6)
    np.testing.assert_allclose(grads["prompt"], w[0] * TA + w[1] * RPS, rtol=1e-6)


def test_gradient_norm_does_not_differentiate_its_weights():
    def with_gradient_through_weights(x):
        per_task = jax.jacrev(lambda v: task_losses({"prompt": v}))(x)
        inverse = jnp.linalg.norm(per_task, axis=1) ** -0.5
        return (inverse / inverse.sum() * task_losses({"prompt": x})).sum()

    wrong = jax.grad(with_gradient_through_weights)(PROMPT)
    grads, _ = run(WeightingConfig(kind="gradient_norm"))
    assert np.abs(np.asarray(wrong - grads["prompt"])).max() > 0.1


def test_gradient_norm_with_a_task_that_has_no_gradient():
    losses = lambda params: jnp.stack([params["prompt"].sum(), jnp.float32(1.0)])  # noqa: E731
    grads, metrics = weighted_gradients(
        losses, {"prompt": PROMPT}, WeightingConfig(kind="gradient_norm")
    )
    assert np.isfinite(grads["prompt"]).all()
    assert metrics["weight/ta"] < 0.001


def test_uncertainty():
    spread = jnp.array([0.5, -1.0])
    grads, metrics = run(WeightingConfig(kind="uncertainty"), log_variance=spread)
    w = np.exp([-0.5, 1.0])
    np.testing.assert_allclose(grads["prompt"], w[0] * TA + w[1] * RPS, rtol=1e-6)
    np.testing.assert_allclose(grads["log_variance"], 1 - w * LOSSES, rtol=1e-6)
    np.testing.assert_allclose(metrics["weight/ta"], w[0] / w.sum(), rtol=1e-6)


def test_uncertainty_settles_at_the_logarithm_of_the_losses():
    spread = jnp.log(jnp.array(LOSSES))
    grads, _ = run(WeightingConfig(kind="uncertainty"), log_variance=spread)
    np.testing.assert_allclose(grads["log_variance"], 0, atol=1e-6)


def test_only_uncertainty_trains_something():
    assert init_weighting(WeightingConfig()) == {}
    assert init_weighting(WeightingConfig(kind="gradient_norm")) == {}
    start = init_weighting(WeightingConfig(kind="uncertainty"))
    np.testing.assert_array_equal(start["log_variance"], [0, 0])


def test_bad_settings():
    with pytest.raises(UserError, match=r"distill\.weighting\.kind is 'equal'.*'gradient_norm'"):
        WeightingConfig(kind="equal")
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match=rf"ta_weight is {share}"):
            WeightingConfig(ta_weight=share)
