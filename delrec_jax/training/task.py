"""A training as the loop and `delrec plan` both see it: how it begins, what stays frozen, what a batch is, what is minimised.

A `Task` holds functions and shapes, no array and no row of a corpus: what is planned is the very program that runs. A
`Repetition` is one run of it, with weights and examples; repetitions of one task share its compiled step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import jax

from delrec_jax.training.gradients import GradientFn
from delrec_jax.training.loop import LoopConfig, Run, fit
from delrec_jax.training.optimizers import OptimizerConfig
from delrec_jax.training.sharding import Layout, own_share
from delrec_jax.training.steps import EvalStep, TrainState, TrainStep, create_state
from delrec_jax.training.watching import WatchConfig


class TaskConfig(Protocol):
    """What the config says of every training."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """Its rate, and the parts (`accumulate`) that a batch is computed in."""

    @property
    def loop(self) -> LoopConfig:
        """How long."""

    @property
    def batch_size(self) -> int:
        """Examples per step, of all devices together."""


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
      stage: the stage that it is of.
      config: its optimizer, loop and batch size.
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
        """The update, compiled once for all repetitions."""
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
        """Of the largest batch."""
        return int(jax.tree.leaves(self.batch)[0].shape[0])

    @property
    def parts(self) -> int:
        """That a batch is computed in."""
        return self.config.optimizer.accumulate

    @property
    def share(self) -> tuple[int, int]:
        """Which share of every batch this process brings, see `sharding.own_share`."""
        return own_share(self.layout, self.config.batch_size)

    def lower(self) -> Any:
        """The step, ready to be compiled."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        return self.step.lower(self.state, self.frozen, self.batch, key)


@dataclass(frozen=True)
class Repetition:
    """One run of a task.

    Attributes:
      name: shown and logged, such as `prompt/distilled`.
      directory: of its checkpoints, metrics and result.
      params: what trains, at step 0.
      frozen: arrays of `Task.frozen`'s shapes, already where the layout says.
      batches: endless iterator with `get_state` and `set_state`.
      share: of every batch that `batches` bring: `Task.share`, or (0, 1) where every process draws whole batches.
      evaluate: params -> metrics; must contain `monitor`.
      key: of its dropout.
      identity: what it depends on, by key; its checkpoints are refused to any other.
      monitor, select, watch, summary: as `loop.Run` has them.
    """

    name: str
    directory: Path
    params: Any
    frozen: Any
    batches: Any
    share: tuple[int, int]
    evaluate: Callable[[Any], dict[str, float]]
    key: jax.Array
    identity: Mapping[str, Any]
    watch: WatchConfig
    monitor: str = "valid/selection"
    select: str = "best"
    summary: Callable[[TrainState], dict[str, Any]] = field(default=lambda state: {})


def run_task(task: Task, one: Repetition) -> tuple[Any, dict[str, Any]]:
    """Trains a task once, or resumes it, or returns the finished result: the selected parameters and their description.

    Raises:
      UserError, Preempted: as `loop.fit`.
    """
    return fit(
        Run(
            name=one.name,
            directory=one.directory,
            state=create_state(one.params, task.optimizer),
            frozen=one.frozen,
            batches=one.batches,
            step=task.step,
            layout=task.layout,
            evaluate=one.evaluate,
            monitor=one.monitor,
            config=task.config.loop,
            key=one.key,
            select=one.select,
            share=one.share,
            identity=one.identity,
            watch=one.watch,
            summary=one.summary,
        )
    )


def shapes_of(tree: Any) -> Any:
    """A tree's shapes and types, without its arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
