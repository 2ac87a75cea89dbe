"""The one training loop: evaluate, save, next batch, step, log; the same for teacher, LM, prompt and adapters.

It knows a step function and a metric to select by, and nothing about recommendation. Step 0 takes part in the
selection: if training only does harm, the initial parameters are kept.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.distributed import as_main_sees, is_main
from delrec_jax.errors import Preempted, UserError
from delrec_jax.training.averaging import parameters_to_use
from delrec_jax.training.checkpoints import Checkpoints, check_identity, load_tree, save_tree
from delrec_jax.training.gradients import Metrics
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.optimizers import planned_steps
from delrec_jax.training.preemption import StopRequest
from delrec_jax.training.profiling import parse_span
from delrec_jax.training.refreshing import Refresh
from delrec_jax.training.row_steps import steps_ahead
from delrec_jax.training.sharding import Layout, place, place_batch
from delrec_jax.training.steps import TrainState, state_shardings
from delrec_jax.training.watching import Watch, Watcher


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
      share: the share of every batch that `batches` yields, see `sharding.own_share`.
      identity: what the run depends on, by key; a run with another identity refuses its checkpoints.
      watch: traces, and trackers such as TensorBoard.
      summary: final state -> what else to store with the result.
      refresh: what of `frozen` is made again from time to time.
      block: 0, where `step` is one update by one placed batch; otherwise `step` is a `RowSteps`, which takes the batches of
        this many updates at once, or of fewer where the loop has something to do in between (`row_steps.steps_ahead`).
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
    share: tuple[int, int] = (0, 1)
    identity: Mapping[str, Any] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    summary: Callable[[TrainState], dict[str, Any]] = lambda state: {}
    refresh: Refresh | None = None
    block: int = 0
    saved: Callable[[], None] | None = None


@dataclass
class _Progress:
    """What the loop remembers in addition to the state; stored in every checkpoint."""

    best_value: float = -np.inf
    best_step: int = 0
    stale: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)


def fit(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains a run, or resumes it, or returns its finished result.

    Returns:
      The selected parameters, and a description (`best_step`, `best_value`, `steps`, and what `summary` adds).

    Raises:
      UserError: the loss is not finite, a result on disk is damaged, a checkpoint belongs to another experiment or cannot be
        written, or the optimizer's schedule was made for another number of steps than `config.steps`.
      Preempted: the process was told to end; everything done so far is saved.
    """
    result = run.directory / "result.safetensors"
    if not as_main_sees(result.exists):
        with Checkpoints(run.directory / "checkpoints") as checkpoints, StopRequest() as stop:
            trained = _Training(run, checkpoints, stop)
            trained.go()
            chosen, meta = trained.chosen(), trained.description()
        save_tree(result, chosen, meta)
    return load_tree(result)


class _Training:
    """A run in progress: its state on the devices, and what the loop remembers."""

    def __init__(self, run: Run, checkpoints: Checkpoints, stop: StopRequest):
        self.run, self.checkpoints, self.stop = run, checkpoints, stop
        # A copy: the first step donates it, and the caller's arrays must outlive the run.
        self.state = place(run.state, state_shardings(run.state, run.layout))
        self.progress, self.key, self.frozen = _Progress(), run.key, run.frozen
        self._saved, self._told = -1, False
        self._ends = (run.config.steps, *(parse_span(run.watch.profile) or ()))
        self._every = [run.config.evaluate_every, run.config.checkpoint_every]
        if run.refresh is not None:
            self._every.append(run.refresh.every)
        self._resume()
        self.at = int(self.state.step)
        self._check_plan()

    def go(self) -> None:
        """Trains until the planned steps, the time limit or the patience is used up."""
        run, progress = self.run, self.progress
        with Watcher(
            run.name,
            run.directory,
            total=run.config.steps,
            start=self.at,
            rows=progress.rows,
            watch=run.watch,
            identity=run.identity,
            monitor=run.monitor,
            quiet=not is_main(),
        ) as watcher:
            progress.rows = watcher.rows
            metrics: dict[str, jax.Array] = {}
            if not watcher.rows:
                self._evaluate(watcher, metrics)
            started = time.monotonic() - progress.seconds
            while self.at < run.config.steps and not self._done():
                self._refresh(watcher)
                watcher.before_step(self.at)
                metrics, examples = self._step()
                progress.seconds = time.monotonic() - started
                watcher.step(self.at, metrics, examples)
                if self.at % run.config.evaluate_every == 0 or self.at == run.config.steps:
                    self._evaluate(watcher, metrics)
                self._keep(watcher, metrics)
            if watcher.rows[-1]["step"] < self.at:  # the time limit came between two evaluations
                self._evaluate(watcher, metrics)

    def _refresh(self, watcher: Watcher) -> None:
        """Makes again what of the frozen inputs is due; at step 0 they are as they were given."""
        refresh = self.run.refresh
        if refresh is not None and self.at and refresh.due(self.at):
            with watcher.aside():
                self.frozen = {**self.frozen, **refresh.make(self.state.params)}

    def _step(self) -> tuple[Metrics, int]:
        """Takes one step, or a block of them; returns the last one's metrics, and the number of examples of all."""
        run = self.run
        steps = steps_ahead(self.at, run.block, ends=self._ends, every=self._every)
        drawn = [next(run.batches) for _ in range(steps)]
        batch = drawn if run.block else place_batch(drawn[0], run.layout, run.share)
        with jax.profiler.StepTraceAnnotation(run.name, step_num=self.at):
            self.state, metrics = run.step(self.state, self.frozen, batch, self.key)
        self.at += steps
        return metrics, len(jax.tree.leaves(drawn[0])[0]) * run.share[1] * steps

    def chosen(self) -> Any:
        """The parameters to keep."""
        if self.run.select == "last" or self.progress.best_step == self.at:
            return _weights(self.state)
        self.checkpoints.wait()
        restored = self.checkpoints.restore(self.state, self.progress.best_step)
        assert restored is not None
        return _weights(restored[0])

    def description(self) -> dict[str, Any]:
        """What is stored with these parameters."""
        return {
            "best_step": self.progress.best_step,
            "best_value": self.progress.best_value,
            "steps": self.at,
            "monitor": self.run.monitor,
            **self.run.summary(self.state),
        }

    def _evaluate(self, watcher: Watcher, metrics: dict[str, jax.Array]) -> None:
        """Evaluates the current parameters, logs a row, and saves them if they are the best so far."""
        progress = self.progress
        with watcher.aside():
            losses = self._check_finite(metrics)
            measured = self.run.evaluate(_weights(self.state))
        value = measured[self.run.monitor]
        progress.stale += 1
        better = value > progress.best_value
        if better:
            progress.best_value, progress.best_step, progress.stale = value, self.at, 0
        row = {"run": self.run.name, "step": self.at, **losses, **measured}
        watcher.record({**row, "seconds": round(progress.seconds, 2)})
        if better and self.run.select == "best" and self.at < self.run.config.steps:
            with watcher.aside():
                self._save(best=value)

    def _keep(self, watcher: Watcher, metrics: dict[str, jax.Array]) -> None:
        """Saves if a checkpoint is due or the process was told to end; in the latter case ends the run.

        Raises:
          Preempted: the process was told to end.
        """
        refresh = self.run.refresh
        self._told = self.stop.asked() or self._told
        asked = self._told and (refresh is None or refresh.due(self.at))
        due = self.at % self.run.config.checkpoint_every == 0 and self.at < self.run.config.steps
        if (due or asked) and self._saved != self.at:
            with watcher.aside():
                self._check_finite(metrics)
                self._save()
        if asked:
            self.checkpoints.wait()
            raise Preempted(f"{self.run.name}: saved at step {self.at} of {self.run.config.steps}")

    def _save(self, best: float | None = None) -> None:
        meta = {
            "progress": asdict(self.progress),
            "iterator": self.run.batches.get_state(),
            "key": jax.random.key_data(self.key).tolist(),
            "identity": dict(self.run.identity),
        }
        self.checkpoints.save(self.at, self.state, meta, best=best)
        self._saved = self.at
        if self.run.saved is not None:
            self.checkpoints.wait()
            self.run.saved()

    def _resume(self) -> None:
        restored = self.checkpoints.restore(self.state)
        if restored is None:
            return
        self.state, meta = restored
        check_identity(self.checkpoints.directory, meta["identity"], dict(self.run.identity))
        self.run.batches.set_state(meta["iterator"])
        words = jnp.array(meta["key"], jnp.uint32)
        self.key = jax.random.wrap_key_data(words, impl=jax.random.key_impl(self.run.key))
        self.progress = _Progress(**meta["progress"])
        self._saved = int(self.state.step)
        best, known = self.progress.best_step, self.progress.best_value > -np.inf
        if self.run.select == "best" and known and best not in self.checkpoints.steps:
            raise UserError(
                f"{self.checkpoints.directory / str(best)}: the checkpoint with the best parameters so far is missing or "
                f"damaged: restore it from a copy, or remove {self.checkpoints.directory} and start the same command again to "
                "train from the beginning"
            )

    def _check_plan(self) -> None:
        """Refuses a schedule made for another number of steps: it would end before training does, or never."""
        run = self.run
        for planned in planned_steps(self.state.opt_state) - {run.config.steps}:
            raise UserError(
                f"{run.name}: loop.steps is {run.config.steps}, but its optimizer was made for {planned} steps: make the "
                f"two equal, or remove {run.directory / 'checkpoints'} if an earlier run left it"
            )

    def _check_finite(self, metrics: dict[str, jax.Array]) -> dict[str, float]:
        """The step's metrics on the host; an error if one is not finite, so that no such step is saved or selected."""
        losses = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not np.isfinite(list(losses.values())).all():
            raise UserError(
                f"{self.run.name}: the loss is not finite at step {self.at} ({losses}); lower its learning_rate or "
                f"set optimizer.clip. The last good checkpoint is in {self.run.directory / 'checkpoints'}"
            )
        return losses

    def _done(self) -> bool:
        config, progress = self.run.config, self.progress
        if 0 < config.patience <= progress.stale:
            return True
        # Clocks differ between processes: process 0 decides. Without a limit there is nothing to decide.
        late = config.max_seconds
        return late > 0 and as_main_sees(lambda: progress.seconds >= late)


def _weights(state: TrainState) -> Any:
    """The parameters that the run would leave if it ended now."""
    return parameters_to_use(state.params, state.opt_state)
