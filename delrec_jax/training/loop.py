"""The one training loop: evaluate, save, next batch, step, log; the same for teacher, LM, prompt and adapters.

It knows a step function and a metric to select by, and nothing about recommendation. Step 0 takes part in the
selection: if training only does harm, the initial parameters are kept.
"""

import time
from collections.abc import Mapping
from typing import Any

import jax

from delrec_jax.distributed import as_main_sees, is_main, lost_another, main_number
from delrec_jax.errors import Preempted, UserError, one_line
from delrec_jax.training.averaging import parameters_to_use
from delrec_jax.training.checkpoints import Checkpoints, load_tree, save_tree
from delrec_jax.training.finiteness import first_bad_leaf, first_bad_metric, in_words, origin
from delrec_jax.training.gradients import Metrics
from delrec_jax.training.preemption import StopRequest
from delrec_jax.training.run import Progress, Run
from delrec_jax.training.spikes import Spike, bound, first_spike
from delrec_jax.training.stepping import Again, Stepper, Taken
from delrec_jax.training.steps import TrainState
from delrec_jax.training.watchdog import Watchdog
from delrec_jax.training.watching import Watcher
from delrec_jax.training.writers import say


def fit(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains a run, or resumes it, or returns its finished result.

    Work that hangs ends the process (`watchdog`).

    Returns:
      The selected parameters, and a description (`best_step`, `best_value`, `steps`, `rollbacks` where the run may go back, and
      what `summary` adds).

    Raises:
      UserError: a number is not finite, a spike of the loss ends the run, a result on disk is damaged, a checkpoint belongs to
        another experiment or cannot be written, or the optimizer's schedule was made for another number of steps than
        `config.steps`.
      Preempted: the process was told to end; everything done so far is saved.
    """
    result, watch = run.directory / "result.safetensors", run.watch
    with Watchdog(
        run.name, run.directory, watch.hang_after, flush=watch.trackers.abandon
    ) as watchdog:
        watchdog.begin("waiting for the other processes", 0)
        if not as_main_sees(result.exists):
            watchdog.begin("reading the checkpoints", 0)
            with Checkpoints(run.directory / "checkpoints") as checkpoints, StopRequest() as stop:
                trained = _Training(run, checkpoints, stop, watchdog)
                trained.go()
                watchdog.begin("writing the last checkpoints", trained.steps.at)
                chosen = trained.chosen()
                meta = trained.description(chosen)
            watchdog.begin("storing the result", trained.steps.at)
            save_tree(result, chosen, meta)
        return load_tree(result)


class _Training:
    """A run in progress: its steps, and what the loop remembers."""

    def __init__(self, run: Run, checkpoints: Checkpoints, stop: StopRequest, watchdog: Watchdog):
        self.run, self.checkpoints, self.stop, self.watchdog = run, checkpoints, stop, watchdog
        self.steps = Stepper(run, checkpoints, watchdog)
        restored = self.steps.restore()
        self.steps.check_plan()
        self.progress = restored or Progress()
        self._saved, self._told = -1 if restored is None else self.steps.at, False
        self.steps.check_best(self.progress)
        self._started = time.monotonic() - self.progress.seconds

    def go(self) -> None:
        """Trains until the planned steps, the time limit or the patience is used up."""
        run, steps = self.run, self.steps
        with Watcher(
            run.name,
            run.directory,
            total=run.config.steps,
            start=steps.at,
            rows=self.progress.rows,
            watch=run.watch,
            identity=run.identity,
            monitor=run.monitor,
            quiet=not is_main(),
        ) as watcher:
            self.progress.rows = watcher.rows
            if not watcher.rows:
                self._evaluate(watcher, {})
            self._started = time.monotonic() - self.progress.seconds
            taken = Taken({}, 0)
            while steps.at < run.config.steps and not self._done():
                if steps.refresh_due():
                    with watcher.aside():
                        steps.refresh()
                watcher.before_step(steps.at)
                taken = steps.take(run.block)
                self.progress.seconds = time.monotonic() - self._started
                watcher.step(steps.at, taken.metrics, taken.examples)
                if self._went_back(watcher, taken):
                    continue
                if steps.at % run.config.evaluate_every == 0 or steps.at == run.config.steps:
                    self._evaluate(watcher, taken.metrics)
                self._keep(watcher, taken.metrics)
            if watcher.rows[-1]["step"] < steps.at:  # the time limit came between two evaluations
                self._evaluate(watcher, taken.metrics)

    def chosen(self) -> Any:
        """The parameters to keep."""
        if self.run.select == "last" or self.progress.best_step == self.steps.at:
            return _weights(self.steps.state)
        self.checkpoints.wait()
        restored = self.checkpoints.restore(self.steps.state, self.progress.best_step)
        assert restored is not None
        return _weights(restored[0])

    def description(self, chosen: Any) -> dict[str, Any]:
        """What is stored with these parameters."""
        goes_back = self.run.config.on_spike == "rollback"
        return {
            "best_step": self.progress.best_step,
            "best_value": self.progress.best_value,
            "steps": self.steps.at,
            "monitor": self.run.monitor,
            **({"rollbacks": self.progress.rollbacks} if goes_back else {}),
            **self.run.summary(chosen, self.steps.state),
        }

    def _evaluate(self, watcher: Watcher, metrics: Metrics) -> None:
        """Evaluates the current parameters, logs a row, and saves them if they are the best so far."""
        progress, run, at = self.progress, self.run, self.steps.at
        with watcher.aside():
            losses = self._check_finite(watcher, metrics)
            self.watchdog.begin("the evaluation", at)
            measured = run.evaluate(_weights(self.steps.state))
        value = measured[run.monitor]
        progress.stale += 1
        better = value > progress.best_value
        if better:
            progress.best_value, progress.best_step, progress.stale = value, at, 0
        self._log(watcher, {**losses, **measured})
        if better and run.select == "best" and at < run.config.steps:
            with watcher.aside():
                self._save(best=value)

    def _log(self, watcher: Watcher, values: Mapping[str, float], step: int | None = None) -> None:
        """Writes a row of this step, or of an earlier one."""
        at = self.steps.at if step is None else step
        row = {"run": self.run.name, "step": at, **values}
        if self.run.config.on_spike == "rollback":
            row["rollbacks"] = len(self.progress.rollbacks)
        self.watchdog.begin("writing the log", at)
        watcher.record({**row, "seconds": round(self.progress.seconds, 2)})

    def _keep(self, watcher: Watcher, metrics: Metrics) -> None:
        """Saves if a checkpoint is due or the process was told to end; in the latter case ends the run.

        Raises:
          Preempted: the process was told to end.
        """
        refresh, config, at = self.run.refresh, self.run.config, self.steps.at
        self._told = self.stop.asked() or self._told
        asked = self._told and (refresh is None or refresh.due(at))
        due = at % config.checkpoint_every == 0 and at < config.steps
        if (due or asked) and self._saved != at:
            with watcher.aside():
                self._check_finite(watcher, metrics)
                self._save(planned=due)
        if asked:
            self.checkpoints.wait()
            raise Preempted(f"{self.run.name}: saved at step {at} of {config.steps}")

    def _save(self, *, best: float | None = None, planned: bool = True) -> None:
        self.steps.save(self.progress, best=best, planned=planned)
        self._saved = self.steps.at

    def _went_back(self, watcher: Watcher, taken: Taken) -> bool:
        """Goes back to the last planned checkpoint if a loss was a spike, and ends the run if it may not.

        Raises:
          UserError: the run may not go back, or not once more.
        """
        config, progress = self.run.config, self.progress
        if not config.on_spike:
            return False
        found = first_spike(progress.losses, taken.losses, config.spike)
        # Sums differ in their last bits between processes: process 0 decides.
        place = main_number(lambda: -1 if found is None else found.place)
        if place < 0:
            progress.losses = [*progress.losses, *taken.losses][-config.spike.window :]
            return False
        before = [*progress.losses, *taken.losses[:place]]
        spike = Spike(place, taken.losses[place], bound(before, config.spike))
        step = self.steps.at - len(taken.losses) + place + 1
        if config.on_spike == "stop" or len(progress.rollbacks) >= config.spike.rollbacks:
            self._stop_at(watcher, taken, spike, step)
        self._go_back(watcher, spike, step)
        return True

    def _go_back(self, watcher: Watcher, spike: Spike, step: int) -> None:
        """Goes back from a spike at a step; what it did since the checkpoint is forgotten, but not that it went back."""
        before, target, most = self.progress, self.progress.planned, self.run.config.spike.rollbacks
        with watcher.aside():
            self.watchdog.begin("going back to a checkpoint", step)
            self.checkpoints.wait()
            self.checkpoints.forget_after(target)
            self.progress = self.steps.go_back(target, spike.place)
            self._saved = self.steps.at
        start = self.steps.at
        gone = {"step": step, "to": start, "skipped": step - start, **spike.numbers()}
        self.progress.rollbacks = [*before.rollbacks, gone]
        self.progress.seconds = before.seconds
        watcher.go_back(start, self.progress.rows)
        self.progress.rows = watcher.rows
        say(
            f"  {self.run.name}: {spike} at step {step}: back to step {start}, then continuing with the batch after it; "
            f"batches skipped: {step - start} (rollback {len(self.progress.rollbacks)} of {most})"
        )
        if not watcher.rows:
            self._evaluate(watcher, {})

    def _stop_at(self, watcher: Watcher, taken: Taken, spike: Spike, step: int) -> None:
        """Ends the run at a spike, after its log has the loss."""
        with watcher.aside():  # of what is not finite, this says more
            self._check_finite(watcher, taken.metrics)
        self._log(watcher, {"loss": spike.loss}, step)
        self.checkpoints.wait()
        rollbacks = self.run.config.spike.rollbacks
        gone = f" after {rollbacks} rollbacks" if self.run.config.on_spike == "rollback" else ""
        raise UserError(
            f"{self.run.name}: {spike} at step {step}{gone}, which ends the run (loop.on_spike); {self._last_good()}. Lower "
            "its learning_rate, set optimizer.clip, or raise loop.spike.deviations if such a loss is normal here"
        )

    def _check_finite(self, watcher: Watcher, metrics: Metrics) -> dict[str, float]:
        """The step's metrics on the host; ends the run where one, or a parameter, is not finite: nothing of it is kept."""
        if not metrics:
            return {}
        losses = {name: float(value) for name, value in jax.device_get(metrics).items()}
        bad = self._bad(losses)
        if bad is None:
            return losses
        self._log(watcher, losses)
        at = self.steps.at
        self.checkpoints.wait()
        good = self._last_good()
        say(f"  {self.run.name}: not finite at step {at}; looking for the first such number")
        more = (
            ""
            if self.run.config.on_spike == "rollback"
            else ", or let it go on without the batches that did this: loop.on_spike=rollback"
        )
        raise UserError(
            f"{self.run.name}: {self._origin(at, bad)}; {good}. Lower its learning_rate, or set optimizer.clip{more}"
        )

    def _bad(self, losses: Mapping[str, float]) -> str | None:
        """What is not finite now, if anything: a metric of the last step, or a parameter."""
        metric = first_bad_metric(losses)
        if metric is not None:
            return in_words(metric)
        leaf = first_bad_leaf(self.steps.state.params, self.run.layout)
        return None if leaf is None else f"the parameter {leaf}"

    def _origin(self, at: int, bad: str) -> str:
        """Says what was the first number that is not finite, by taking the steps since the last checkpoint again."""
        seen = f"{bad} is not finite at step {at}"
        try:
            found = origin(Again(self.steps), at, self.run.layout)
        except RuntimeError as error:  # as where the memory does not suffice for gradients alone
            if lost_another(error):
                raise
            return f"{seen} (where it began could not be found: {one_line(error, most=200)})"
        if found is None:
            return f"{seen}; when the steps since the last checkpoint were taken again, every number was finite"
        return f"{found.what} is not finite at step {found.step}, the first such number (the log ends at step {at})"

    def _last_good(self) -> str:
        latest, folder = self.checkpoints.latest_step, self.run.directory / "checkpoints"
        return (
            "there is no checkpoint yet"
            if latest is None
            else f"the last good checkpoint is {folder / str(latest)}"
        )

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
