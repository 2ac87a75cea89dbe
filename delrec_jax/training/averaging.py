"""An exponential moving average of the parameters, kept by the optimizer and used by evaluation.

Single steps of a small model on a small corpus scatter: so does the validation metric, and the best of many noisy
checkpoints is chosen partly by luck. The average of the late steps is steadier and ranks better (docs/results.md). The
training itself is the same with and without it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


class AverageState(NamedTuple):
    """The wrapped optimizer's state, the number of updates, and the average."""

    inner: Any
    updates: Int[Array, ""]
    average: Any


def with_average(
    optimizer: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
    """The same updates, and in the state the average of the parameters that they lead to.

    The decay grows with the steps, min(decay, (1 + n) / (10 + n)), so that the start is soon forgotten.

    Args:
      optimizer: whatever computes the updates; nothing may change them afterwards.
      decay: weight of the past, below 1.
    """

    def init(params):
        # A copy: the step donates state and parameters, and one buffer cannot be donated twice.
        average = jax.tree.map(jnp.array, params)
        return AverageState(optimizer.init(params), jnp.zeros([], jnp.int32), average)

    def update(updates, state, params=None):
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
    """The averaged parameters where the optimizer keeps them, else the present ones."""
    return opt_state.average if isinstance(opt_state, AverageState) else params
