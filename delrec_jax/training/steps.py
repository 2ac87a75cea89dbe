"""The jitted train step: what trains is state, what is frozen is an argument (design 4.3)."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from delrec_jax.training.sharding import batch_sharding, replicated

Metrics = dict[str, jax.Array]
GradientFn = Callable[[Any, Any, Any, jax.Array], tuple[Any, Metrics]]
LossFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, jax.Array, Metrics]]


@flax.struct.dataclass
class TrainState:
    """All that a step changes, and nothing else.

    Attributes:
      step: updates done.
      params: what trains.
      opt_state: of the optimizer over `params`.
    """

    step: jax.Array
    params: Any
    opt_state: Any


def create_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """A state at step 0."""
    return TrainState(jnp.zeros([], jnp.int32), params, optimizer.init(params))


def mean_loss_gradients(loss_fn: LossFn) -> GradientFn:
    """The gradient of the weighted mean of per-example losses.

    Args:
      loss_fn: (params, frozen, batch, key) -> (losses, weights of the same shape, metrics). The mean over
        weights is taken here and nowhere else; a penalty is added by returning it as metrics["penalty"].
    """

    def mean_loss(params, frozen, batch, key):
        losses, weights, metrics = loss_fn(params, frozen, batch, key)
        loss = (losses * weights).sum() / jnp.maximum(weights.sum(), 1.0)
        return loss + metrics.get("penalty", 0.0), {"loss": loss, **metrics}

    return jax.grad(mean_loss, has_aux=True)


def make_train_step(
    gradient_fn: GradientFn, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[[TrainState, Any, Any, jax.Array], tuple[TrainState, Metrics]]:
    """Compiles one update: gradients, optimizer, new state; the state is donated.

    Args:
      gradient_fn: (params, frozen, batch, key) -> (gradients, metrics).
      optimizer: over `params`.
      mesh: batches are split over it, state and frozen weights are replicated.

    Returns:
      step(state, frozen, batch, key) -> (state, metrics); `key` is the run's, the step folds its number in.
    """

    def step(state: TrainState, frozen, batch, key):
        step_key = jax.random.fold_in(key, state.step)
        grads, metrics = gradient_fn(state.params, frozen, batch, step_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {**metrics, "gradient_norm": optax.global_norm(grads)}
        return TrainState(state.step + 1, params, opt_state), metrics

    whole = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, whole, batch_sharding(mesh), whole),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )
