"""The one training loop: evaluate, save, next batch, step, log; the same for teacher, LM, prompt and adapters.

It knows a step function and a metric to select by, and nothing of recommendation. Step 0 is a candidate of the
selection: training that only harms leaves what it started from.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from delrec_jax.errors import UserError
from delrec_jax.training.averaging import parameters_to_use
from delrec_jax.training.checkpoints import Checkpoints, load_tree, save_tree
from delrec_jax.training.optimizers import planned_steps
from delrec_jax.training.sharding import place_batch, replicated
from delrec_jax.training.steps import TrainState
from delrec_jax.training.writers import MetricsFile, ProgressBar


@dataclass(frozen=True)
class LoopConfig:
    """How long, and how often.

    Attributes:
      steps: planned updates.
      evaluate_every: steps between two evaluations (one more at step 0 and at the end).
      checkpoint_every: steps between two checkpoints.
      patience: evaluations without a better one before stopping; 0 = never.
      max_seconds: no further step after this time of training; 0 = no limit. A limit makes a run depend on the
        machine's speed: for demonstrations and budgets only.
    """

    steps: int = 1000
    evaluate_every: int = 100
    checkpoint_every: int = 500
    patience: int = 0
    max_seconds: float = 0.0

    def __post_init__(self):
        for name, least in (("steps", 0), ("evaluate_every", 1), ("checkpoint_every", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"loop.{name} is {getattr(self, name)}: it must be at least {least}"
                )


@dataclass(frozen=True)
class Run:
    """Everything that one training run is made of.

    Attributes:
      name: shown and logged, such as `prompt/distilled`.
      directory: of its checkpoints, metrics and result.
      state: at step 0.
      frozen: passed to every step, never changed.
      batches: endless iterator with `get_state` and `set_state`.
      step: the jitted train step.
      evaluate: params -> metrics; must contain `monitor`.
      monitor: the metric to maximise.
      config: lengths.
      key: of the run's random stream.
      mesh: devices.
      select: "best" keeps the parameters of the best evaluation, "last" those of the last step.
      summary: final state -> what else to store beside the result.
    """

    name: str
    directory: Path
    state: TrainState
    frozen: Any
    batches: Any
    step: Callable
    evaluate: Callable[[Any], dict[str, float]]
    monitor: str
    config: LoopConfig
    key: jax.Array
    mesh: Mesh
    select: str = "best"
    summary: Callable[[TrainState], dict[str, Any]] = lambda state: {}


@dataclass
class _Progress:
    """What the loop remembers beside the state; stored in every checkpoint."""

    best: Any
    best_value: float = -np.inf
    best_step: int = 0
    stale: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)


def fit(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains, or resumes, or returns the finished result.

    Returns:
      The selected parameters, and a description (`best_step`, `best_value`, `steps`, and what `summary` adds).

    Raises:
      UserError: the loss is not finite, a result on disk is damaged, or the optimizer's schedule was made for another
        number of steps than `config.steps`.
    """
    result = run.directory / "result.safetensors"
    if not result.exists():
        with Checkpoints(run.directory / "checkpoints") as checkpoints:
            state, progress = _train(run, checkpoints)
        chosen = _weights(state) if run.select == "last" else progress.best
        meta = {
            "best_step": progress.best_step,
            "best_value": progress.best_value,
            "steps": int(state.step),
            "monitor": run.monitor,
            **run.summary(state),
        }
        save_tree(result, chosen, meta)
    return load_tree(result)


def _train(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, _Progress]:
    # A copy: the first step donates it, and the caller's arrays must outlive the run.
    state = jax.device_put(run.state, replicated(run.mesh), may_alias=False)
    progress = _Progress(best=_host_copy(run.state.params))
    state, progress = _resume(run, checkpoints, state, progress)
    _check_plan(run, state)
    log = MetricsFile(run.directory / "metrics.jsonl", progress.rows)
    progress.rows = log.rows
    if not log.rows:
        _evaluate(run, state, progress, log, {})
    metrics: dict[str, jax.Array] = {}
    started = time.monotonic() - progress.seconds
    with ProgressBar(run.name, run.config.steps, int(state.step)) as bar:
        step = int(state.step)
        while step < run.config.steps and not _stop(run, progress):
            batch = place_batch(next(run.batches), run.mesh)
            state, metrics = run.step(state, run.frozen, batch, run.key)
            step += 1
            progress.seconds = time.monotonic() - started
            if step % run.config.evaluate_every == 0 or step == run.config.steps:
                _evaluate(run, state, progress, log, metrics)
                bar.update(step, _note(log.rows[-1], run.monitor))
            if step % run.config.checkpoint_every == 0 and step < run.config.steps:
                _check_finite(run, step, metrics)
                _save(run, checkpoints, step, state, progress)
    if log.rows[-1]["step"] < step:  # out of time between two evaluations
        _evaluate(run, state, progress, log, metrics)
    return state, progress


def _check_plan(run: Run, state: TrainState) -> None:
    """A schedule made for another length would end before training does, or never."""
    for planned in planned_steps(state.opt_state) - {run.config.steps}:
        raise UserError(
            f"{run.name}: loop.steps is {run.config.steps}, but its optimizer was made for {planned} steps: make both of "
            f"one number, or remove {run.directory / 'checkpoints'} if an earlier run left it"
        )


def _host_copy(tree: Any) -> Any:
    # A copy, not a view: the next step donates the device's buffer.
    return jax.tree.map(np.array, jax.device_get(tree))


def _weights(state: TrainState) -> Any:
    """What the run would leave if it ended here."""
    return parameters_to_use(state.params, state.opt_state)


def _stop(run: Run, progress: _Progress) -> bool:
    tired = 0 < run.config.patience <= progress.stale
    return tired or 0 < run.config.max_seconds <= progress.seconds


def _evaluate(run: Run, state: TrainState, progress: _Progress, log: MetricsFile, metrics) -> None:
    """Measures the present parameters, keeps them when they are the best so far, logs a row."""
    losses = _check_finite(run, int(state.step), metrics)
    measured = run.evaluate(_weights(state))
    value = measured[run.monitor]
    progress.stale += 1
    if value > progress.best_value:
        progress.best = _host_copy(_weights(state))
        progress.best_value, progress.best_step, progress.stale = value, int(state.step), 0
    row = {"run": run.name, "step": int(state.step), **losses, **measured}
    log.write({**row, "seconds": round(progress.seconds, 2)})


def _check_finite(run: Run, step: int, metrics: dict[str, jax.Array]) -> dict[str, float]:
    """The step's numbers on the host; nothing is saved or selected where one of them is not finite."""
    losses = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if not np.isfinite(list(losses.values())).all():
        raise UserError(
            f"{run.name}: the loss is not finite at step {step} ({losses}); lower its learning_rate or "
            f"set optimizer.clip. The last good checkpoint is in {run.directory / 'checkpoints'}"
        )
    return losses


def _note(row: dict[str, Any], monitor: str) -> str:
    loss = f"loss {row['loss']:.3f}  " if "loss" in row else ""
    return f"{loss}{monitor} {row[monitor]:.4f}"


def _save(run: Run, checkpoints: Checkpoints, step: int, state: TrainState, progress: _Progress):
    meta = {
        "best_value": progress.best_value,
        "best_step": progress.best_step,
        "stale": progress.stale,
        "seconds": progress.seconds,
        "rows": progress.rows,
        "iterator": run.batches.get_state(),
    }
    checkpoints.save(step, {"state": state, "best": progress.best}, meta)


def _resume(run: Run, checkpoints: Checkpoints, state: TrainState, progress: _Progress):
    best = jax.device_put(progress.best, replicated(run.mesh))
    restored = checkpoints.restore({"state": state, "best": best})
    if restored is None:
        return state, progress
    arrays, meta = restored
    run.batches.set_state(meta.pop("iterator"))
    best = _host_copy(arrays["best"])
    return arrays["state"], _Progress(best=best, **meta)
