"""A train step and what it selects by, with the shapes that they take: ready to be compiled, without any array."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from delrec_jax.planning.shapes import Batch
from delrec_jax.training.gradients import GradientFn
from delrec_jax.training.sharding import Layout
from delrec_jax.training.steps import EvalStep, TrainState, TrainStep, create_state


@dataclass(frozen=True)
class Scoring:
    """What a stage computes to select: scores of one batch.

    Attributes:
      function: (held, rows) -> scores.
      held: weights.
      rows: one batch.
      layout: where they lie.
    """

    function: Callable[[Any, Any], jax.Array]
    held: Any
    rows: Batch
    layout: Layout

    def lower(self) -> Any:
        """The scores, ready to be compiled."""
        return EvalStep(self.function, self.layout).lower(self.held, self.rows)


@dataclass(frozen=True)
class PlannedStep:
    """The train step of one stage, and the shapes that it takes.

    Attributes:
      stage: its name.
      step: the step itself; it can be lowered and compiled.
      state: what trains and its optimizer.
      frozen: weights that the step reads; None in `teach` and `pretrain`.
      batch: one batch of all devices together.
      layout: where all of them lie.
      parts: that a batch is computed in (`optimizer.accumulate`).
      scoring: how it selects; None for `pretrain`, whose gate reads short texts.
    """

    stage: str
    step: TrainStep
    state: TrainState
    frozen: Any
    batch: Batch
    layout: Layout
    parts: int
    scoring: Scoring | None = None

    @property
    def rows(self) -> int:
        """Of a batch."""
        return jax.tree.leaves(self.batch)[0].shape[0]

    def lower(self) -> Any:
        """The step, ready to be compiled."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        return self.step.lower(self.state, self.frozen, self.batch, key)


def planned_step(
    stage: str,
    gradients: GradientFn,
    params: Any,
    optimizer: Any,
    layout: Layout,
    *,
    batch: Batch,
    parts: int,
    frozen: Any = None,
    scoring: Scoring | None = None,
) -> PlannedStep:
    """Puts a step together, with the shapes of the state that it begins with; arguments as `PlannedStep` has them."""
    state = jax.eval_shape(lambda tree: create_state(tree, optimizer), params)
    step = TrainStep(gradients, optimizer, layout)
    return PlannedStep(stage, step, state, frozen, batch, layout, parts, scoring)
