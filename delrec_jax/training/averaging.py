"""Exponential moving average of the parameters, kept by the optimizer and used by evaluation.

Single steps of a small model on a small corpus are noisy, and so is the validation metric: the best of many noisy
checkpoints is chosen partly by luck. The average over the late steps is steadier and ranks better
(docs/results/baselines_movielens.md).
Training itself is the same with and without it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


class AverageState(NamedTuple):
    """The wrapped optimizer's state, the number of updates so far, and the average."""

    inner: Any
    updates: Int[Array, ""]
    average: Any


def with_average(
    optimizer: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
    """Wraps an optimizer: its updates stay the same, and its state also holds the average of the updated parameters.

    At step n the decay is min(decay, (1 + n) / (10 + n)), so that the initial parameters are soon forgotten.

    Args:
      optimizer: computes the updates; nothing may change them afterwards.
      decay: weight of the past average, below 1.
    """

    def init(params: optax.Params) -> AverageState:
        """The inner optimizer's state, and an average that starts at the parameters."""
        # A copy: the step donates both state and parameters, and the same buffer cannot be donated twice.
        average = jax.tree.map(jnp.array, params)
        return AverageState(optimizer.init(params), jnp.zeros([], jnp.int32), average)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AverageState]:
        """Takes the inner optimizer's step, then moves the average towards the new parameters."""
        updates, inner = optimizer.update(updates, state.inner, params)
        count = state.updates + 1
        weight = jnp.minimum(decay, (1 + count) / (10 + count))
        moved = optax.apply_updates(params, updates)
        average = jax.tree.map(
            lambda past, now: (weight * past + (1 - weight) * now).astype(past.dtype),
            state.average,
            moved,
        )
        return updates, AverageState(inner, count, average)

    return optax.GradientTransformation(init, update)


def parameters_to_use(params: Any, opt_state: Any) -> Any:
    """The averaged parameters if the optimizer keeps them, otherwise the current ones."""
    return opt_state.average if isinstance(opt_state, AverageState) else params
