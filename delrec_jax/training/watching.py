"""Watching a training run: what its steps cost and how far it is, without slowing it down.

Steps are dispatched, not awaited. A wall time is right only between two moments when the device is idle, so steps are
timed in stretches from one such moment to the next: evaluations, and updates of the display.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from rich.console import Console

from delrec_jax.training.profiling import StepTrace, parse_span
from delrec_jax.training.tracking.trackers import Trackers
from delrec_jax.training.writers import MetricsFile, ProgressBar

TIMINGS = frozenset({"seconds", "step_seconds", "examples_per_second", "goodput", "memory_gib"})
"""The fields of a row that depend on the machine; two runs of the same config agree in all others."""

_GIB = 2**30


@dataclass(frozen=True)
class Watch:
    """What is written in addition to `metrics.jsonl`.

    Attributes:
      profile: START:STOP, the steps of each training run to trace with JAX; empty = none.
      trackers: TensorBoard and others that are told every row.
      hang_after: seconds after which work that has not ended counts as hanging, see `watchdog`; 0 = never.
    """

    profile: str = ""
    trackers: Trackers = field(default_factory=Trackers)
    hang_after: float = 0.0

    def __post_init__(self) -> None:
        parse_span(self.profile)


class Watcher:
    """Shows, times, records and traces one training run; a context manager. `rows` are all so far."""

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        total: int,
        start: int,
        rows: list[dict[str, Any]],
        watch: Watch,
        identity: Mapping[str, Any] | None = None,
        monitor: str = "",
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ):
        """Rewrites `metrics.jsonl` with the rows of the checkpoint.

        Args:
          name: name of the run, such as `prompt/distilled`.
          directory: where its files are written.
          total: planned steps.
          start: steps already done, according to the checkpoint.
          rows: the rows of the checkpoint.
          watch: what else to write.
          identity: what the run's results depend on, by key.
          monitor: the metric of an evaluation that is shown; empty = all of them.
          quiet: another process shows and writes; this one only collects rows.
          clock: returns the time in seconds.
          console: where to show a bar; stderr by default.
        """
        trackers = Trackers() if quiet else watch.trackers
        self._monitor, self._done = monitor, start
        self._file = MetricsFile(None if quiet else directory / "metrics.jsonl", rows)
        self.rows = self._file.rows
        self._tell_of = partial(trackers.training, name, directory, identity=identity or {})
        self._telling = ExitStack()
        self._bar: ProgressBar | None = None
        self._trace: StepTrace | None = None
        span = parse_span(watch.profile)
        if not quiet:
            self._bar = ProgressBar(name, total, start, console=console, clock=clock)
            self._trace = StepTrace(name, directory / "trace", span, start) if span else None
        self._pace = _Pace(clock)
        self._asides = 0
        self._metrics: dict[str, jax.Array] = {}

    def __enter__(self) -> "Watcher":
        with ExitStack() as stack:
            self._tell = stack.enter_context(self._telling).enter_context(
                self._tell_of(tuple(self.rows))
            )
            if self._bar:
                stack.enter_context(self._bar)
            stack.enter_context(told_of_compilations(self._pace.spoil))
            stack.push(self._end_trace)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._opened.__exit__(*exc)

    def before_step(self, done: int) -> None:
        """Must be called when `done` steps are done and another will follow: a trace may start here.

        It does not start at the end of `step`, because an evaluation may come in between and would fill the trace.
        """
        if self._trace and self._trace.starts(done):
            with self.aside():
                self._trace.start(done)

    def step(self, step: int, metrics: dict[str, jax.Array], examples: int) -> None:
        """Must be called after each dispatch of train steps; waits for the device only when the display is due.

        Args:
          step: steps done, including those that were dispatched.
          metrics: scalars of the last step, which may not have been computed yet.
          examples: number of examples of all these steps, over all devices.
        """
        self._pace.count(step - self._done, examples)
        self._done, self._metrics = step, metrics
        if self._pace.spoilt:
            self._settle()
        if self._trace and self._trace.stops(step):
            with self.aside():
                self._trace.stop(step)
        self._show()

    def go_back(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Must be called when training goes back to an earlier step, with its rows: as if it had been resumed there."""
        self._file = MetricsFile(self._file.path, rows)
        self.rows, self._done = self._file.rows, step
        self._telling.close()
        self._tell = self._telling.enter_context(self._tell_of(tuple(rows)))

    def record(self, row: dict[str, Any]) -> None:
        """Adds timings and memory to a row and writes it; must be called after each evaluation.

        `step_seconds` and `examples_per_second` are means over the train steps since the last row, without evaluations and
        compilations. `goodput` is the share of the wall time since then (or since this process began to train) that these steps
        took: the rest went into evaluations, checkpoints and compilations. A row without a step has none of the three.

        Args:
          row: must contain `step`.

        Raises:
          OSError: `metrics.jsonl` cannot be written, for example because the disk is full.
        """
        with self.aside():
            row = {**row, **self._pace.take(), "memory_gib": round(peak_memory_gib(), 3)}
            self._file.write(row)
            self._tell(row)
        self._show()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """For anything other than a train step: waits for the last step, then stops the clock. May be nested."""
        if not self._asides:
            self._settle()
        self._asides += 1
        try:
            yield
        finally:
            self._asides -= 1
            self._pace.restart()

    def _settle(self) -> None:
        jax.block_until_ready(self._metrics)
        self._pace.settle()

    def _show(self) -> None:
        if self._bar:
            self._bar.update(self._done, self._note)

    def _note(self) -> str:
        self._settle()
        parts = [f"{name} {value:.3f}" for name, value in self._evaluated()]
        if "loss" in self._metrics:
            parts.insert(0, f"loss {float(self._metrics['loss']):.3f}")
        rate = self._pace.examples_per_second
        if rate is not None:
            parts.append(f"{rate:.0f} examples/s" if rate >= 10 else f"{rate:.2g} examples/s")
        return "  ".join(parts)

    def _evaluated(self) -> list[tuple[str, float]]:
        """The metrics of the latest evaluation that are shown."""
        row = self.rows[-1] if self.rows else {}
        if self._monitor:
            return [(self._monitor, row[self._monitor])] if self._monitor in row else []
        others = {"run", "step", *TIMINGS, *self._metrics}
        return [(name, value) for name, value in row.items() if name not in others]

    def _end_trace(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._trace:
            return
        if kind is None:  # after a failure the device may never finish
            self._settle()
        self._trace.close(self._done, failed=kind is not None)


class _Pace:
    """Wall time of train steps, summed over stretches at the ends of which the device is idle.

    A stretch with a compilation (as the first step is, whatever JAX reports) is left out entirely: the device may have worked
    on earlier steps meanwhile, so the compile time cannot be subtracted.
    """

    def __init__(self, clock: Callable[[], float]):
        self.examples_per_second: float | None = None  # of the latest stretch
        self.spoilt = False
        self._clock, self._warm = clock, False
        self._steps, self._examples, self._seconds = 0, 0, 0.0
        self._taken = clock()
        self.restart()

    def restart(self) -> None:
        """Starts a new stretch."""
        self._since, self._new_steps, self._new_examples = self._clock(), 0, 0
        self.spoilt = False

    def spoil(self) -> None:
        """Notes that something was compiled in this stretch."""
        self.spoilt = True

    def count(self, steps: int, examples: int) -> None:
        """Counts steps that were dispatched."""
        self._new_steps += steps
        self._new_examples += examples
        self.spoilt |= not self._warm
        self._warm = True

    def settle(self) -> None:
        """Ends the stretch, now that the device is idle, and starts another."""
        seconds = self._clock() - self._since
        if self._new_steps and seconds > 0 and not self.spoilt:
            self._steps += self._new_steps
            self._examples += self._new_examples
            self._seconds += seconds
            self.examples_per_second = self._new_examples / seconds
        self.restart()

    def take(self) -> dict[str, float]:
        """The means since the last call, and the steps' share of the time, to four digits; empty if no step could be timed."""
        steps, examples, seconds = self._steps, self._examples, self._seconds
        self._steps, self._examples, self._seconds = 0, 0, 0.0
        since, self._taken = self._taken, self._clock()
        if not steps:
            return {}
        means = {"step_seconds": seconds / steps, "examples_per_second": examples / seconds}
        means["goodput"] = seconds / (self._taken - since)
        return {name: float(f"{value:.4g}") for name, value in means.items()}


@contextmanager
def told_of_compilations(tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` whenever JAX traces or compiles something inside the context."""

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            tell()

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def peak_memory_gib() -> float:
    """Peak memory so far in GiB: of the fullest local device if the backend reports it, else of this process (CPU)."""
    device = device_memory_gib()
    return process_memory_gib() if device is None else device


def device_memory_gib() -> float | None:
    """Peak memory so far of the fullest local device in GiB; None if the backend does not report it (CPU)."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks: list[int] = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    return max(peaks) / _GIB if peaks else None


def process_memory_gib() -> float:
    """Peak memory so far of this process on its host in GiB."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident * (1 if sys.platform == "darwin" else 1024) / _GIB
