"""Optimizers and schedules by name: Adam, AdamW and Lion with warm-up, decay and clipping.

A schedule is made for a number of steps. That number is part of the optimizer's state (`planned_steps`), so that the
loop can refuse to train for any other: past its end a schedule would silently stay at its last rate.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from delrec_jax.choices import one_of
from delrec_jax.errors import UserError
from delrec_jax.training.averaging import with_average

_SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class OptimizerConfig:
    """One optimizer with its schedule.

    Attributes:
      name: `adam`, `adamw` or `lion`.
      learning_rate: peak learning rate.
      schedule: `cosine`, `linear` or `constant` after the warm-up.
      final_fraction: share of the peak that the schedule ends at.
      warmup_steps: steps of linear warm-up from 0.
      weight_decay: decoupled weight decay; not used by `adam`.
      clip: largest global norm of the gradient, applied before the update; 0 = off.
      b1: decay rate of the first moment.
      b2: decay rate of the second moment.
      accumulate: number of parts that a batch is computed in, one after the other: the memory of one part, the update of
        the full batch (`training.gradients.accumulated`).
      average: decay of the moving average of the parameters; the average is then what is evaluated and kept; 0 = off.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    final_fraction: float = 0.02
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip: float = 1.0
    b1: float = 0.9
    b2: float = 0.98
    accumulate: int = 1
    average: float = 0.0

    def __post_init__(self) -> None:
        one_of("optimizer.name", self.name, tuple(_CORES))
        if self.learning_rate <= 0 or min(self.clip, self.weight_decay, self.warmup_steps) < 0:
            raise UserError(
                f"optimizer: learning_rate {self.learning_rate} must be positive; clip {self.clip}, weight_decay "
                f"{self.weight_decay} and warmup_steps {self.warmup_steps} must not be negative"
            )
        if not 0 <= self.final_fraction <= 1:
            raise UserError(
                f"optimizer.final_fraction is {self.final_fraction}: it must be a share of the peak from 0 to 1"
            )
        if self.accumulate < 1:
            raise UserError(
                f"optimizer.accumulate is {self.accumulate}: it must be at least 1 (1 = the whole batch at once)"
            )
        if not 0 <= self.average < 1:
            raise UserError(f"optimizer.average is {self.average}: it must be in [0, 1)")
        one_of("optimizer.schedule", self.schedule, _SCHEDULES)


_CORES: Mapping[str, Callable[[optax.Schedule, OptimizerConfig], optax.GradientTransformation]] = {
    "adam": lambda rate, config: optax.adam(rate, b1=config.b1, b2=config.b2),
    "adamw": lambda rate, config: optax.adamw(
        rate, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay
    ),
    "lion": lambda rate, config: optax.lion(
        rate, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay
    ),
}
"""The optimizers by name, without what comes before them."""


def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Warm-up, then decay that ends exactly at the last planned step.

    Raises:
      UserError: the warm-up is at least as long as the run.
    """
    if not total_steps:  # nothing trains
        return optax.constant_schedule(0.0)
    if config.warmup_steps >= total_steps:
        raise UserError(
            f"optimizer.warmup_steps is {config.warmup_steps}, but the run has {total_steps} steps: lower it or train longer"
        )
    peak, end = config.learning_rate, config.learning_rate * config.final_fraction
    steps = total_steps - config.warmup_steps
    after = {
        "cosine": optax.cosine_decay_schedule(peak, steps, config.final_fraction),
        "linear": optax.linear_schedule(peak, end, steps),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clipping, then the named optimizer on its schedule, for exactly `total_steps` updates."""
    rate = learning_rate_schedule(config, total_steps)
    core = _CORES[config.name](rate, config)
    clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    optimizer = optax.chain(_planned_for(total_steps), *clip, core)
    return with_average(optimizer, config.average) if config.average else optimizer


def with_own_rate(
    inner: optax.GradientTransformation, branch: str, factor: float
) -> optax.GradientTransformation:
    """The same optimizer, whose updates of one branch of the tree are multiplied by a factor, weight decay included.

    Args:
      inner: optimizer of the entire tree, a mapping.
      branch: key of the branch.
      factor: factor of its learning rate.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """Scales the branch."""
        own = jax.tree.map(lambda change: factor * change, updates[branch])
        return {**updates, branch: own}, state

    own_rate = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    return optax.chain(inner, own_rate)


class PlanState(NamedTuple):
    """The number of updates that an optimizer was made for."""

    planned_steps: Int[Array, ""]


def _planned_for(total_steps: int) -> optax.GradientTransformation:
    """Leaves the updates as they are; its state holds the planned number of steps."""
    return optax.GradientTransformation(
        lambda params: PlanState(jnp.array(total_steps, jnp.int32)),
        lambda updates, state, params=None: (updates, state),
    )


def planned_steps(opt_state: Any) -> set[int]:
    """The numbers of steps that an optimizer's parts were made for: the values of all fields named `planned_steps`.

    Fields are found by name, so that wrappers defined elsewhere can have a plan too. Empty for plain optax.
    """
    leaves = jax.tree_util.tree_leaves_with_path(opt_state)
    return {
        int(leaf)
        for path, leaf in leaves
        if path and getattr(path[-1], "name", None) == "planned_steps"
    }
