"""A training task as both the loop and `delrec plan` see it: its start, its frozen weights, its batches, its loss.

A `Task` holds functions and shapes, but no arrays and no rows of a corpus: what is planned is the very program that runs.
Weights and examples are passed to each run of it (`run_task`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import jax

from delrec_jax import prng
from delrec_jax.batches import Share
from delrec_jax.training.gradients import GradientFn
from delrec_jax.training.loop import fit
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig
from delrec_jax.training.run import Run
from delrec_jax.training.sharding import Layout, own_share
from delrec_jax.training.steps import EvalStep, TrainState, TrainStep, create_state


class TaskConfig(Protocol):
    """What the config says about every training task."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """The optimizer, and the number of parts (`accumulate`) that a batch is computed in."""

    @property
    def loop(self) -> LoopConfig:
        """How long to train, and how often to evaluate and save."""


@dataclass(frozen=True, eq=False)
class Scoring:
    """What a stage computes to select parameters: scores of one batch.

    Attributes:
      function: (held, rows) -> scores.
      held: shapes of the weights.
      rows: shapes of one batch.
      layout: where both are placed.
      axes: names of the scores' axes, by which they stay split over the mesh; None = each process gets all.
    """

    function: Callable[[Any, Any], jax.Array]
    held: Any
    rows: Any
    layout: Layout
    axes: tuple[str, ...] | None = None

    @cached_property
    def step(self) -> EvalStep:
        """The function, compiled once."""
        return EvalStep(self.function, self.layout, self.axes)

    def lower(self) -> Any:
        """Lowers the function: ready to be compiled."""
        return self.step.lower(self.held, self.rows)


@dataclass(frozen=True, eq=False)
class Task:
    """A training task without its data.

    Attributes:
      stage: the stage it belongs to.
      config: its optimizer and loop.
      layout: where state, frozen weights and batches are placed.
      gradients: (params, frozen, batch, key) -> (gradients, metrics).
      optimizer: updates the parameters that train.
      start: (frozen, seed) -> the parameters that train, at step 0.
      frozen: shapes of what the step reads and never changes; None if it reads nothing.
      batch: shapes of the largest batch that the config tells of, over all devices together.
      scoring: how it selects parameters; None for `pretrain`, whose gate `delrec plan` leaves out.
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
        """Shapes of the parameters that train and of the optimizer state."""

        def begin(frozen: Any) -> TrainState:
            return create_state(self.start(frozen, 0), self.optimizer)

        found: TrainState = jax.eval_shape(begin, self.frozen)
        return found

    @property
    def rows(self) -> int:
        """Rows per batch (of the largest if they differ), over all devices together."""
        return int(jax.tree.leaves(self.batch)[0].shape[0])

    @property
    def parts(self) -> int:
        """Number of parts that a batch is computed in."""
        return self.config.optimizer.accumulate

    @property
    def share(self) -> Share:
        """Which rows of every batch this process provides, see `sharding.own_share`."""
        return own_share(self.layout, self.rows)

    def lower(self) -> Any:
        """Lowers the step: ready to be compiled."""
        bits = self.config.loop.random_bits
        key = jax.eval_shape(lambda: prng.drawing(jax.random.key(0), bits))
        return self.step.lower(self.state, self.frozen, self.batch, key)


def run_task(task: Task, params: Any, **run: Any) -> tuple[Any, dict[str, Any]]:
    """Trains a task, or resumes it, or returns its finished result: the selected parameters and their description.

    Args:
      task: what is trained; its step is compiled once, however often it runs.
      params: the parameters that train, at step 0.
      run: the other fields of a `run.Run`: name, directory, frozen weights of `task.frozen`'s shapes, batches, evaluate, a key
        of `prng`, ...; `share` and `step` replace the task's own.

    Raises:
      UserError, Preempted: as in `loop.fit`.
    """
    run["key"] = prng.drawing(run["key"], task.config.loop.random_bits)
    own = {name: getattr(task, name) for name in ("share", "step") if name not in run}
    return fit(
        Run(
            state=_start(params, task.optimizer),
            layout=task.layout,
            config=task.config.loop,
            **own,
            **run,
        )
    )


def _start(params: Any, optimizer: Any) -> TrainState:
    """The state at step 0 on the host: it is kept for the whole run, and a device may have no room for all of it."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        found: TrainState = jax.device_get(create_state(jax.device_get(params), optimizer))
    return found


def shapes_of(tree: Any) -> Any:
    """The shapes and types of a tree, without its arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
