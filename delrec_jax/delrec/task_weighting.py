"""How the losses of TA and RPS are weighted into one (method.md, stage 1, item 3).

`fixed`          L = lambda L_TA + (1 - lambda) L_RPS.
`gradient_norm`  weights proportional to (1 / |grad L_task|) ** 0.5, summing to 1, no gradient through them (the reference).
`uncertainty`    L = sum_task exp(-s) L_task + s with a trained log-variance s a task (Kendall et al., 2018).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from delrec_jax.config.delrec import WeightingConfig

TASKS = ("ta", "rps")
_GRADIENT_EXPONENT = 0.5


def init_weighting(config: WeightingConfig) -> dict[str, Array]:
    """What the weighting itself trains: two log-variances, or nothing."""
    return {"log_variance": jnp.zeros(2)} if config.kind == "uncertainty" else {}


def weighted_gradients(
    task_losses: Callable[[Any], Float[Array, "2"]], params: dict[str, Any], config: WeightingConfig
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Gradient of the weighted loss, and what to log.

    Args:
      task_losses: params -> the mean losses of TA and RPS.
      params: what trains: `prompt`, and `log_variance` for `uncertainty`.
      config: the weighting.

    Returns:
      Gradients in the tree of `params`; metrics `loss`, `loss/ta`, `loss/rps`, `weight/ta`.
    """
    if config.kind == "gradient_norm":
        losses, pull_back = jax.vjp(task_losses, params)
        per_task = [pull_back(row)[0] for row in jnp.eye(2)]
        norms = jnp.stack([optax.global_norm(grads) for grads in per_task])
        inverse = (1 / (norms + 1e-8)) ** _GRADIENT_EXPONENT
        weights = inverse / inverse.sum()
        grads = jax.tree.map(lambda a, b: weights[0] * a + weights[1] * b, *per_task)
        return grads, _metrics(losses, weights)

    def total(params):
        losses = task_losses(params)
        if config.kind == "uncertainty":
            spread = params["log_variance"]
            weights = jnp.exp(-spread)
            return (weights * losses + spread).sum(), (losses, weights / weights.sum())
        weights = jnp.array([config.ta_weight, 1 - config.ta_weight])
        return (weights * losses).sum(), (losses, weights)

    grads, (losses, weights) = jax.grad(total, has_aux=True)(params)
    return grads, _metrics(losses, weights)


def _metrics(losses: Float[Array, "2"], weights: Float[Array, "2"]) -> dict[str, Array]:
    return {
        "loss": (losses * weights).sum(),
        "loss/ta": losses[0],
        "loss/rps": losses[1],
        "weight/ta": weights[0],
    }
