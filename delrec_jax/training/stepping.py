"""The state of a training run on the devices: it takes steps, is saved and restored, and goes back where it has to."""

from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.errors import UserError
from delrec_jax.training.checkpoints import Checkpoints, check_identity
from delrec_jax.training.finiteness import TellsGradients
from delrec_jax.training.gradients import Metrics
from delrec_jax.training.optimizers import planned_steps
from delrec_jax.training.profiling import parse_span
from delrec_jax.training.row_steps import steps_ahead
from delrec_jax.training.run import Progress, Run
from delrec_jax.training.sharding import place, place_batch
from delrec_jax.training.steps import state_shardings
from delrec_jax.training.watchdog import Watchdog


@dataclass(frozen=True)
class Taken:
    """One step, or a block of them.

    Attributes:
      metrics: those of the last step.
      examples: number of examples of all of them, over all devices.
      losses: the loss of each, where spikes matter, NaN where its gradient was not finite; otherwise none.
    """

    metrics: Metrics
    examples: int
    losses: tuple[float, ...] = ()


class Stepper:
    """State, random stream, frozen inputs and batches of a run, and how many steps it has done.

    Attributes:
      state: what the steps change.
      frozen: what they read.
      at: steps done.
    """

    def __init__(self, run: Run, checkpoints: Checkpoints, watchdog: Watchdog):
        """Stands at the run's start; nothing is read from the checkpoints yet."""
        self.run, self.checkpoints, self._watchdog = run, checkpoints, watchdog
        self._ends = (run.config.steps, *(parse_span(run.watch.profile) or ()))
        self._every = [run.config.evaluate_every, run.config.checkpoint_every]
        if run.refresh is not None:
            self._every.append(run.refresh.every)
        self._first = self._before = run.batches.get_state()
        self._resumes: tuple[int, Any] = (-1, None)
        self._start()

    def _start(self) -> None:
        """Takes the run's start, wherever the batches are."""
        # A copy: the first step donates it, and the caller's arrays must outlive the run.
        self.state = place(self.run.state, state_shardings(self.run.state, self.run.layout))
        self.at, self.key, self.frozen = int(self.state.step), self.run.key, self.run.frozen

    def restore(self, step: int | None = None) -> Progress | None:
        """Goes to a checkpoint (None = the latest), and to its place among the batches; returns its progress.

        Returns:
          None if there is no checkpoint: nothing has changed.

        Raises:
          UserError: it cannot be read, or belongs to another experiment.
        """
        restored = self.checkpoints.restore(self.state, step)
        if restored is None:
            return None
        self.state, meta = restored
        check_identity(self.checkpoints.directory, meta["identity"], dict(self.run.identity))
        self.run.batches.set_state(meta["iterator"])
        words = jnp.array(meta["key"], jnp.uint32)
        self.key = jax.random.wrap_key_data(words, impl=jax.random.key_impl(self.run.key))
        self.at, self.frozen = int(self.state.step), self.run.frozen
        return Progress(**meta["progress"])

    def check_plan(self) -> None:
        """Refuses a schedule made for another number of steps: it would end before training does, or never."""
        run = self.run
        for planned in planned_steps(self.state.opt_state) - {run.config.steps}:
            raise UserError(
                f"{run.name}: loop.steps is {run.config.steps}, but its optimizer was made for {planned} steps: make the "
                f"two equal, or remove {run.directory / 'checkpoints'} if an earlier run left it"
            )

    def check_best(self, progress: Progress) -> None:
        """Refuses to go on where the best parameters so far are lost."""
        best, folder = progress.best_step, self.checkpoints.directory
        known = progress.best_value > -np.inf
        if self.run.select == "best" and known and best not in self.checkpoints.steps:
            raise UserError(
                f"{folder / str(best)}: the checkpoint with the best parameters so far is missing or damaged: restore it from "
                f"a copy, or remove {folder} and start the same command again to train from the beginning"
            )

    def save(self, progress: Progress, *, best: float | None = None, planned: bool = True) -> None:
        """Starts to write a checkpoint; waits for it where `Run.saved` is told."""
        if planned:
            progress.planned = self.at
        meta = {
            "progress": asdict(progress),
            "iterator": self.run.batches.get_state(),
            "key": jax.random.key_data(self.key).tolist(),
            "identity": dict(self.run.identity),
        }
        self._watchdog.begin("saving a checkpoint", self.at)
        self.checkpoints.save(self.at, self.state, meta, best=best, planned=planned)
        self._watchdog.follow("writing a checkpoint", self.at, lambda: self.checkpoints.saving)
        if self.run.saved is not None:
            self.checkpoints.wait()
            self.run.saved()

    def refresh_due(self) -> bool:
        """Whether some of the frozen inputs are to be made again; at step 0 they are as they were given."""
        refresh = self.run.refresh
        return refresh is not None and self.at > 0 and refresh.due(self.at)

    def refresh(self) -> None:
        """Makes again what of the frozen inputs follows the parameters."""
        assert self.run.refresh is not None
        self._watchdog.begin("making frozen inputs again", self.at)
        self.frozen = {**self.frozen, **self.run.refresh.make(self.state.params)}

    def take(self, most: int) -> Taken:
        """Takes one step, or a block of at most so many."""
        run = self.run
        steps = steps_ahead(self.at, most, ends=self._ends, every=self._every)
        if run.config.on_spike:
            self._before = run.batches.get_state()
        drawn = self._draw(steps)
        batch = drawn if run.block else place_batch(drawn[0], run.layout, run.share)
        with jax.profiler.StepTraceAnnotation(run.name, step_num=self.at):
            self.state, metrics = run.step(self.state, self.frozen, batch, self.key)
        self.at += steps
        losses: tuple[float, ...] = ()
        if run.config.on_spike:
            metrics = jax.device_get(metrics)
            losses = tuple(_told_by_gradients(metrics)[:steps].tolist())
            if run.block:
                metrics = {name: values[steps - 1] for name, values in metrics.items()}
        return Taken(metrics, run.share.whole(len(jax.tree.leaves(drawn[0])[0])) * steps, losses)

    def go_back(self, step: int, place: int) -> Progress:
        """Goes to a checkpoint, from where training continues with a later batch.

        Args:
          step: the checkpoint's; -1 = the run's start.
          place: which of the batches taken last, from 0; the one after it comes next.

        Returns:
          The progress there.
        """
        after, progress = self._before, None
        if step >= 0:
            progress = self.restore(step)
        else:
            self._start()
        self.run.batches.set_state(after)
        for _ in range(place + 1):
            next(self.run.batches)
        self._resumes = self.at, self.run.batches.get_state()
        return progress or Progress()

    def repeat(self) -> None:
        """Goes to the latest checkpoint, or to the run's start if there is none, to take the steps since then again."""
        if self.restore() is None:
            self._start()
            self.run.batches.set_state(self._first)
        at, batches = self._resumes
        if at == self.at:
            self.run.batches.set_state(batches)

    def next_gradients(self) -> Any:
        """The gradients of the next step; None where the step function cannot tell them."""
        run = self.run
        if not isinstance(run.step, TellsGradients):
            return None
        (drawn,) = self._draw(1)
        batch = [drawn] if run.block else place_batch(drawn, run.layout, run.share)
        return run.step.gradients(self.state, self.frozen, batch, self.key)

    def _draw(self, steps: int) -> list[Any]:
        """The next batches of this process."""
        self._watchdog.begin("drawing a batch", self.at + 1)
        drawn = [next(self.run.batches) for _ in range(steps)]
        if self._watchdog.active:
            shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(drawn[0]))
            self._watchdog.begin("a train step", self.at + steps, shapes=shapes)
        return drawn


def _told_by_gradients(metrics: Metrics) -> np.ndarray:
    """The losses of steps [S]; NaN for a step whose gradient is not finite, which is what its loss would say one step later."""
    losses = np.atleast_1d(np.asarray(metrics["loss"]))
    norms = np.atleast_1d(np.asarray(metrics.get("gradient_norm", losses)))
    return np.where(np.isfinite(norms), losses, np.nan)


class Again:
    """The steps since the latest checkpoint, taken again one by one: `finiteness.Steps`."""

    def __init__(self, steps: Stepper):
        """Takes the run's steps, which are not used for training afterwards."""
        self._steps = steps

    def back(self) -> int:
        """Goes back to the checkpoint; returns its step."""
        self._steps.repeat()
        return self._steps.at

    def step(self) -> Metrics:
        """Takes one step; returns its metrics."""
        if self._steps.refresh_due():
            self._steps.refresh()
        return self._steps.take(1).metrics

    def parameters(self) -> Any:
        """The parameters now."""
        return self._steps.state.params

    def gradients(self) -> Any:
        """The gradients of the step that would be next; None if they cannot be had."""
        if self._steps.refresh_due():
            self._steps.refresh()
        return self._steps.next_gradients()
