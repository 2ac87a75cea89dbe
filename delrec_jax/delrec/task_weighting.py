"""How the losses of stage 1's tasks are combined into one (method.md, stage 1, "Shares and weights").

`fixed`          L = sum_task w_task L_task, with the weights of `distill.tasks` normalized to sum to 1.
`gradient_norm`  weights proportional to (1 / |grad L_task|) ** 0.5, summing to 1, without gradient (the reference: with one)
`uncertainty`    L = sum_task exp(-s) (L_task + 1e-4) + s with a trained log-variance s for each task (Kendall et al., 2018).

A task without a text in the batch has loss 0. `gradient_norm` and `uncertainty` also give it weight 0, and the weights of
the other tasks still sum to 1 under `gradient_norm`.

A task that is learned completely has loss 0 too, and no gradient. `gradient_norm` would give it nearly all the weight: it
gets none as soon as its gradient is below a millionth of the largest. Under `uncertainty` its s would fall for ever, and
exp(-s) overflow: the 1e-4 ends that at exp(-s) = 10,000.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from delrec_jax.config import DistillConfig

_GRADIENT_EXPONENT = 0.5
_VANISHED = 1e-6  # of the largest gradient norm
_LEAST_LOSS = 1e-4

TaskLosses = Callable[[Any], tuple[Float[Array, " N"], Float[Array, " N"]]]
"""params -> the mean loss of each task (0 if it has no text), and the number of its texts."""


@dataclass(frozen=True)
class TaskWeighting:
    """The kind of weighting, and each task's name with its weight under `fixed`; the weights sum to 1."""

    kind: str
    weights: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, config: DistillConfig, names: tuple[str, ...]) -> "TaskWeighting":
        """The config's weighting of these tasks, in this order."""
        total = sum(config.tasks[name].weight for name in names)
        weights = tuple((name, config.tasks[name].weight / total) for name in names)
        return cls(config.weighting, weights)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(name for name, _ in self.weights)


def init_weighting(weighting: TaskWeighting) -> dict[str, Array]:
    """The weighting's own trainable parameters: one log-variance per task for `uncertainty`, else none."""
    if weighting.kind != "uncertainty":
        return {}
    return {"log_variance": jnp.zeros(len(weighting.weights))}


def weighted_gradients(
    task_losses: TaskLosses, params: dict[str, Any], weighting: TaskWeighting
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Gradient of the weighted loss, and the metrics to log.

    Args:
      task_losses: params -> losses and numbers of texts, by task.
      params: the trained parameters: `prompt`, and `log_variance` for `uncertainty`.
      weighting: how the losses are weighted.

    Returns:
      Gradients in the tree of `params`; metrics `loss`, and `loss/NAME`, `weight/NAME` of each task.
    """
    if weighting.kind == "gradient_norm":
        return _by_gradient_norm(task_losses, params, weighting)

    def total(params: dict[str, Any]) -> tuple[Array, tuple[Array, Array]]:
        """The weighted loss, with the losses and weights of the tasks as auxiliary output."""
        losses, texts = task_losses(params)
        if weighting.kind == "uncertainty":
            spread, present = params["log_variance"], texts > 0
            weights = jnp.where(present, jnp.exp(-spread), 0.0)
            regular = jnp.where(present, spread, 0.0)
            bounded = weights * (losses + _LEAST_LOSS)
            return (bounded + regular).sum(), (losses, weights / weights.sum())
        weights = jnp.array([weight for _, weight in weighting.weights])
        return (weights * losses).sum(), (losses, weights)

    grads, (losses, weights) = jax.grad(total, has_aux=True)(params)
    return grads, _metrics(losses, weights, weighting.names)


def _by_gradient_norm(
    task_losses: TaskLosses, params: dict[str, Any], weighting: TaskWeighting
) -> tuple[dict[str, Any], dict[str, Array]]:
    losses, pull_back, texts = jax.vjp(task_losses, params, has_aux=True)
    per_task = [pull_back(row)[0] for row in jnp.eye(len(weighting.weights))]
    norms = jnp.stack([optax.global_norm(grads) for grads in per_task])  # [N]
    learns = (texts > 0) & (norms > _VANISHED * norms.max())
    inverse = jnp.where(learns, norms, jnp.inf) ** -_GRADIENT_EXPONENT
    weights = inverse / jnp.where(learns.any(), inverse.sum(), 1.0)
    grads = jax.tree.map(lambda *leaves: sum(map(jnp.multiply, weights, leaves)), *per_task)
    return grads, _metrics(losses, weights, weighting.names)


def _metrics(
    losses: Float[Array, " N"], weights: Float[Array, " N"], names: tuple[str, ...]
) -> dict[str, Array]:
    metrics = {"loss": (losses * weights).sum()}
    for index, name in enumerate(names):
        metrics |= {f"loss/{name}": losses[index], f"weight/{name}": weights[index]}
    return metrics
