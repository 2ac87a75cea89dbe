"""What a training run is made of, and what it remembers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from delrec_jax.batches import WHOLE, Share
from delrec_jax.training.gradients import Metrics
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.refreshing import Refresh
from delrec_jax.training.sharding import Layout
from delrec_jax.training.steps import TrainState
from delrec_jax.training.watching import Watch


@dataclass(frozen=True)
class Run:
    """Everything that one training run is made of.

    Attributes:
      name: shown and logged, such as `prompt/distilled`.
      directory: where its checkpoints, metrics and result are stored.
      state: the state at step 0.
      frozen: passed to every step and not changed by it; already placed as the layout says.
      batches: endless iterator over this process's share of each batch, with `get_state` and `set_state`.
      step: the jitted train step: (state, frozen, batch, key) -> (state, metrics).
      layout: where state, frozen weights and batches are placed.
      evaluate: params -> metrics; must contain `monitor`.
      config: how long to train, and how often to evaluate and save.
      key: key of the run's random stream.
      monitor: the metric to maximize.
      select: "best" keeps the parameters of the best evaluation, "last" those of the last step.
      share: the rows of every batch that `batches` yields, see `sharding.own_share`.
      identity: what the run depends on, by key; a run with another identity refuses its checkpoints.
      watch: traces, and trackers such as TensorBoard.
      summary: (the parameters that are kept, final state) -> what else to store with the result.
      refresh: what of `frozen` is made again from time to time.
      block: 0, where `step` is one update by one placed batch; otherwise `step` is a `RowSteps`, which takes the batches of
        this many updates at once, or of fewer where the loop has something to do in between (`row_steps.steps_ahead`). Where
        spikes of the loss matter (`config.on_spike`), it returns the metrics of all of them.
      saved: called by every process when a checkpoint is complete, which training then waits for; None = it goes on meanwhile.
    """

    name: str
    directory: Path
    state: TrainState
    frozen: Any
    batches: Any
    step: Callable[[TrainState, Any, Any, jax.Array], tuple[TrainState, Metrics]]
    layout: Layout
    evaluate: Callable[[Any], dict[str, float]]
    config: LoopConfig
    key: jax.Array
    monitor: str = "valid/selection"
    select: str = "best"
    share: Share = WHOLE
    identity: Mapping[str, Any] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    summary: Callable[[Any, TrainState], dict[str, Any]] = lambda kept, state: {}
    refresh: Refresh | None = None
    block: int = 0
    saved: Callable[[], None] | None = None


@dataclass
class Progress:
    """What the loop remembers in addition to the state; stored in every checkpoint.

    Attributes:
      best_value: the best value of the metric that selects.
      best_step: the step of that evaluation.
      stale: evaluations since then.
      seconds: training time so far.
      rows: the rows of the log.
      planned: step of the last checkpoint that every run of these settings makes; -1 = none yet.
      losses: those of the last steps, where spikes matter.
      rollbacks: where the run went back, and why.
    """

    best_value: float = -np.inf
    best_step: int = 0
    stale: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    planned: int = -1
    losses: list[float] = field(default_factory=list)
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
