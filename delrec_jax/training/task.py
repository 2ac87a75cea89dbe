"""A training as the loop and `delrec plan` both see it: how it begins, what stays frozen, what a batch is, what is minimised.

A `Task` holds functions and shapes, no array and no row of a corpus: what is planned is the very program that runs. Weights
and examples come with each run of it (`run_task`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import jax

from delrec_jax.training.gradients import GradientFn
from delrec_jax.training.loop import LoopConfig, Run, fit
from delrec_jax.training.optimizers import OptimizerConfig
from delrec_jax.training.sharding import Layout, own_share
from delrec_jax.training.steps import EvalStep, TrainState, TrainStep, create_state


class TaskConfig(Protocol):
    """What the config says of every training."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """Its rate, and the parts (`accumulate`) that a batch is computed in."""

    @property
    def loop(self) -> LoopConfig:
        """How long."""


@dataclass(frozen=True, eq=False)
class Scoring:
    """What a stage computes to select: scores of one batch.

    Attributes:
      function: (held, rows) -> scores.
      held: shapes of the weights.
      rows: shapes of one batch.
      layout: where they lie.
    """

    function: Callable[[Any, Any], jax.Array]
    held: Any
    rows: Any
    layout: Layout

    @cached_property
    def step(self) -> EvalStep:
        """The function, compiled once."""
        return EvalStep(self.function, self.layout)

    def lower(self) -> Any:
        """The scores, ready to be compiled."""
        return self.step.lower(self.held, self.rows)


@dataclass(frozen=True, eq=False)
class Task:
    """A training without its data.

    Attributes:
      stage: the stage it belongs to.
      config: its optimizer and loop.
      layout: where state, frozen weights and batches lie.
      gradients: (params, frozen, batch, key) -> (gradients, metrics).
      optimizer: over what trains.
      start: (frozen, seed) -> what trains, at step 0.
      frozen: shapes of what the step reads and never changes; None where it reads nothing.
      batch: shapes of the largest batch, of all devices together.
      scoring: how it selects; None for `pretrain`, whose gate reads short texts.
    """

    stage: str
    config: TaskConfig
    layout: Layout
    gradients: GradientFn
    optimizer: Any
    start: Callable[[Any, int], Any]
    frozen: Any
    batch: Any
    scoring: Scoring | None = None

    @cached_property
    def step(self) -> TrainStep:
        """The update, compiled once for all runs."""
        return TrainStep(self.gradients, self.optimizer, self.layout)

    @cached_property
    def state(self) -> TrainState:
        """Shapes of what trains and of its optimizer's memory."""

        def begin(frozen: Any) -> TrainState:
            return create_state(self.start(frozen, 0), self.optimizer)

        found: TrainState = jax.eval_shape(begin, self.frozen)
        return found

    @property
    def rows(self) -> int:
        """Rows of a batch (of the largest, where they differ), of all devices together."""
        return int(jax.tree.leaves(self.batch)[0].shape[0])

    @property
    def parts(self) -> int:
        """Parts that a batch is computed in."""
        return self.config.optimizer.accumulate

    @property
    def share(self) -> tuple[int, int]:
        """Which share of every batch this process brings, see `sharding.own_share`."""
        return own_share(self.layout, self.rows)

    def lower(self) -> Any:
        """The step, ready to be compiled."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        return self.step.lower(self.state, self.frozen, self.batch, key)


def run_task(task: Task, params: Any, **run: Any) -> tuple[Any, dict[str, Any]]:
    """Trains a task once, or resumes it, or returns the finished result: the selected parameters and their description.

    Args:
      task: what is trained; its step is compiled once, however often it runs.
      params: what trains, at step 0.
      run: what else a `loop.Run` is made of: name, directory, frozen weights of `task.frozen`'s shapes, batches, evaluate, ...

    Raises:
      UserError, Preempted: as `loop.fit`.
    """
    if "share" not in run:
        run["share"] = task.share
    return fit(
        Run(
            state=create_state(params, task.optimizer),
            step=task.step,
            layout=task.layout,
            config=task.config.loop,
            **run,
        )
    )


def shapes_of(tree: Any) -> Any:
    """A tree's shapes and types, without its arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
