"""`delrec study --search=N`: a search over the ranges of a study, on the validation users alone.

STUDY/search.log            what optuna knows of the trials
STUDY/runs/trial-N-SEED/    an ordinary workdir without test results, for no trial is evaluated
STUDY/runs/common-SEED/     what no range touches, made once for all trials
STUDY/best.py               the best trial as a config file
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from delrec_jax.config import to_dict
from delrec_jax.errors import UserError
from delrec_jax.studies.best_config import write_best
from delrec_jax.studies.opening import claim
from delrec_jax.studies.runs import StudyFile
from delrec_jax.studies.scheduling import Schedule
from delrec_jax.studies.study import COMMON, TRIAL
from delrec_jax.studies.trial_runs import Space, TrialRuns, make_space
from delrec_jax.studies.trials import FAILED, FINISHED, PRUNED, Told, Trials
from delrec_jax.training.writers import say
from delrec_jax.workdir.session import locked

_LOOKS = 0.5  # seconds between two looks at the trials
_WARM_UP = 1 / 3  # of the planned steps, before which no trial is given up
_SHOWN = 5  # trials in the table


class Execution(Protocol):
    """A trial that is being executed (`trial_runs.TrialProcess`)."""

    def ended(self) -> str | None:
        """None while it goes on, "" once it is done or has ended as it was told to, or else why it failed."""

    def validation(self) -> Mapping[int, float]:
        """The metric on the validation users so far, by training step."""

    def value(self) -> float:
        """The metric on the validation users of a trial that is done."""

    def end(self) -> None:
        """Tells it to end."""

    def wait(self) -> None:
        """Waits until it has ended."""


class Searching:
    """The trials that are being executed, several at a time; one that ends makes room for the next."""

    def __init__(
        self,
        trials: Trials,
        begin: Callable[[int, Mapping[str, Any]], Execution],
        *,
        total: int,
        looks: float = _LOOKS,
    ):
        """Begins nothing yet.

        Args:
          trials: of the search.
          begin: executes a trial, by its number and values; a UserError is the trial's failure.
          total: how many trials the search should have in the end, with those that it has.
          looks: seconds between two looks at them.
        """
        self._trials, self._begin, self._total, self._looks = trials, begin, total, looks
        self._waiting = trials.left_open()
        self._running: dict[int, Execution] = {}
        self._given_up: set[int] = set()

    def execute(self, at_once: int) -> None:
        """Executes trials until there are enough.

        Args:
          at_once: how many trials.
        """
        try:
            while self._fill(at_once):
                for number in list(self._running):
                    self._look(number)
                if self._running:
                    time.sleep(self._looks)
        finally:  # those that are interrupted stay open, and go on with the next command
            for execution in self._running.values():
                execution.end()
            for execution in self._running.values():
                execution.wait()

    def _fill(self, at_once: int) -> bool:
        while len(self._running) < at_once and (number := self._next()) is not None:
            drawn = self._trials.drawn(number)
            try:
                self._running[number] = self._begin(number, drawn)
            except UserError as error:
                self._fail(number, str(error))
        return bool(self._running)

    def _next(self) -> int | None:
        if self._waiting:
            return self._waiting.pop(0)
        return self._trials.ask() if len(self._trials) < self._total else None

    def _look(self, number: int) -> None:
        execution = self._running[number]
        why = execution.ended()
        if number not in self._given_up:
            self._trials.report(number, execution.validation())
            if why is None and self._trials.hopeless(number):
                self._given_up.add(number)
                self._trials.prune(number)
                execution.end()
                self._tell(number, "given up, below the median")
        if why is None:
            return
        del self._running[number]
        if number in self._given_up:
            return
        if why:
            self._fail(number, why)
            return
        try:
            value = execution.value()
        except UserError as error:
            self._fail(number, str(error))
            return
        self._trials.finish(number, value)
        self._tell(number, f"{value:.4f}")

    def _fail(self, number: int, reason: str) -> None:
        self._trials.fail(number, reason)
        self._tell(number, f"FAILED: {reason}")

    def _tell(self, number: int, what: str) -> None:
        best = self._trials.best()
        so_far = f"; best {best[0].value:.4f}, {TRIAL}{best[0].number}" if best else ""
        ended = len(self._trials) - len(self._trials.left_open())
        say(f"[{ended}/{max(self._total, len(self._trials))}] {TRIAL}{number}: {what}{so_far}")


def search(
    file: StudyFile,
    place: tuple[Path, str | None],
    base: ConfigDict,
    root: Path,
    *,
    total: int,
    at_once: int = 1,
    update: bool = False,
) -> None:
    """Searches, prints the best trials and writes the best one's config.

    Args:
      file: the study file.
      place: the base config's file, and the argument of its `get_config`.
      base: the base config, with what the command line changes of it.
      root: the study's workdir.
      total: number of trials, with those that an earlier command has run.
      at_once: processes.
      update: whether the workdir may have been another study's; a search itself is never another's.

    Raises:
      UserError: the study cannot be searched, another search uses the workdir, what all trials need cannot be made, or no trial
        has a value.
    """
    study = file.study(base)
    space = make_space(study, base)
    with locked(root):
        claim(root, study, base, update=update)
        trials = _opened(root / "search.log", space)
        runs = TrialRuns(root, space)
        open_trials = trials.left_open()
        if open_trials or len(trials) < total:
            _make_common(root, runs)
            Searching(trials, runs.begin, total=total).execute(at_once)
        _conclude(root, trials, space, file, place)


def _opened(path: Path, space: Space) -> Trials:
    start = space.run(COMMON, {}).experiment
    steps = {"tune": start.tune.loop.steps, "teach": start.teacher.loop.steps}
    return Trials(
        path,
        space.ranges,
        seed=space.seed,
        warm_up=int(_WARM_UP * steps.get(space.stage, 0)),
        asked={
            "ranges": [dataclasses.asdict(one) for one in space.ranges],
            "settings": to_dict(start),
            "stage": space.stage,
            "system": space.study.systems_of(space.start)[0],
            "metric": space.study.metric,
        },
    )


def _make_common(root: Path, runs: TrialRuns) -> None:
    """Makes what no range touches; without it every trial would fail.

    Raises:
      UserError: it cannot be made.
    """
    job, ws = runs.common()
    if not job.stages:
        return
    schedule = Schedule(root, [job], {job.run.name: ws})
    schedule.execute(1)
    for why in schedule.failed.values():
        raise UserError(f"what all trials need could not be made, so none was begun: {why}")


def _conclude(
    root: Path, trials: Trials, space: Space, file: StudyFile, place: tuple[Path, str | None]
) -> None:
    told, best = trials.told(), trials.best()
    print(table(told, best, space.study.metric))
    if not best:
        failed = [one for one in told if one.state == FAILED]
        why = f", first {TRIAL}{failed[0].number}: {failed[0].reason}" if failed else ""
        raise UserError(f"none of {len(told)} trials has a value{why}; a larger --search goes on")
    about = (
        f"The best of {len(told)} trials of {file.path}: validation {space.study.metric} {best[0].value:.4f} "
        f"({TRIAL}{best[0].number})."
    )
    run = space.run(f"{TRIAL}{best[0].number}", best[0].drawn, whole=True)
    write_best(root / "best.py", about, place, run.experiment)
    print(f"\nThe best as a config: delrec run --config={root / 'best.py'} --workdir=DIR")


def table(told: list[Told], best: list[Told], metric: str) -> str:
    """The best trials with their values, in Markdown.

    Args:
      told: all trials.
      best: the finished ones, the best first.
      metric: that was measured on the validation users.
    """
    count = Counter(one.state for one in told)
    lines = [
        f"{len(told)} trials: {count[FINISHED]} finished, {count[PRUNED]} given up early, {count[FAILED]} failed. "
        "Test users were not looked at."
    ]
    if best:
        keys = list(best[0].drawn)
        lines += ["", "| " + " | ".join(["Trial", f"validation {metric}", *keys]) + " |"]
        lines.append("| --- " * (2 + len(keys)) + "|")
    for one in best[:_SHOWN]:
        values = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in one.drawn.values())
        lines.append("| " + " | ".join([str(one.number), f"{one.value:.4f}", *values]) + " |")
    return "\n".join(lines)


def told(file: StudyFile, base: ConfigDict, *, total: int) -> str:
    """What a search would do: its ranges, and what is executed once and what per trial.

    Args:
      file: the study file.
      base: the base config.
      total: number of trials.

    Raises:
      UserError: the study cannot be searched.
    """
    study = file.study(base)
    space = make_space(study, base)
    common, own = space.stages(space.run(COMMON, {}).experiment)
    ranges = "\n".join(
        f"  {one.key}: "
        + (", ".join(map(repr, one.choices)) or f"{one.low} to {one.high}{' (log)' * one.log}")
        for one in space.ranges
    )
    return (
        f"{study.question}\n\n{total} trials with seed {space.seed}, by validation {study.metric}, over\n{ranges}\n\n"
        f"once for all trials: {', '.join(common) or 'nothing'}\nfor each trial: {', '.join(own)}"
    )
