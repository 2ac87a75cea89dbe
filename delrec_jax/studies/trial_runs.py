"""The trials of a search as runs: a workdir each, in which everything up to the validation value is executed, and never a test.

What no range touches is executed once for all trials. Of the rest, each trial executes what is its own, in one process.
"""

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from delrec_jax.config import Experiment
from delrec_jax.config.delrec import TRAINED_CONTROLS
from delrec_jax.delrec.systems import TUNED
from delrec_jax.endings import INTERRUPTED, PREEMPTED
from delrec_jax.errors import UserError
from delrec_jax.p2rec.cells import CONTROL_SYSTEMS
from delrec_jax.studies import processes
from delrec_jax.studies.ranges import Range, fitted
from delrec_jax.studies.runs import StudyRun, arm_experiment
from delrec_jax.studies.selection import (
    measured_of,
    validation,
    validation_log,
    validation_so_far,
)
from delrec_jax.studies.sharing import Job, lock_places, open_workdir, stage_key
from delrec_jax.studies.study import COMMON, TRIAL, Arm, Study
from delrec_jax.studies.worker import BUSY
from delrec_jax.workdir.session import in_use
from delrec_jax.workdir.stage_table import STAGES, Stage
from delrec_jax.workdir.workspace import Workspace, keys_read

# Told to end by someone else: it goes on from its checkpoint.
_AGAIN = (BUSY, PREEMPTED, INTERRUPTED)


@dataclass(frozen=True)
class Space:
    """What the trials of a search are.

    Attributes:
      study: of which the ranges, the metric and the first seed are read.
      base: the config that all change.
      ranges: as `ranges.fitted` returns them.
      start: the arm that they begin from.
      stage: the stage that has the validation value.
      log: the folder of its training log within the stage; "" if it has several.
      unread: settings of trials that spare what is of no account for that value.
    """

    study: Study
    base: ConfigDict
    ranges: tuple[Range, ...]
    start: Arm
    stage: str
    log: str
    unread: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Of all trials, and of their draws."""
        return self.study.seeds[0]

    def run(self, name: str, drawn: Mapping[str, Any], *, whole: bool = False) -> StudyRun:
        """A run of the search.

        Args:
          name: of its workdir, with the seed.
          drawn: values by key.
          whole: with everything that the study's settings ask for, and not only what its validation value needs.

        Raises:
          UserError: the values do not go together.
        """
        unread = {} if whole else self.unread
        arm = Arm(
            name, {**self.start.changes, **unread, **drawn}, self.study.systems_of(self.start)
        )
        return StudyRun(arm, self.seed, arm_experiment(arm, self.seed, self.base))

    def stages(self, experiment: Experiment) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The stages that no range touches, and the others up to the validation value, both in their order."""
        table = STAGES[experiment.method]
        needed = _needed(self.stage, table)
        touched: set[str] = set()
        for stage in needed:
            own = any(_reads(table[stage], one.key, experiment) for one in self.ranges)
            if own or touched & set(table[stage].needs):
                touched.add(stage)
        return tuple(s for s in needed if s not in touched), tuple(
            s for s in needed if s in touched
        )


def make_space(study: Study, base: ConfigDict) -> Space:
    """Looks at what a search of a study would be.

    Args:
      study: with ranges.
      base: the config.

    Raises:
      UserError: the study has no ranges, one of them is refused, or validation has no such value.
    """
    if not study.ranges:
        raise UserError(
            "--search needs ranges: give the study some, such as configs/studies/search.py has"
        )
    start = next((arm for arm in study.arms if arm.name == study.reference), Arm(COMMON))
    experiment = arm_experiment(start, study.seeds[0], base)
    stage, log = _validated(study, study.systems_of(start)[0], experiment)
    unread = _unread(stage, study.systems_of(start)[0])
    space = Space(study, base, fitted(study.ranges, base), start, stage, log, unread)
    touched = {one.key for one in space.ranges}
    table = STAGES[experiment.method]
    read = [table[name] for name in _needed(stage, table)]
    idle = sorted(touched & set(unread))
    idle += sorted(key for key in touched if not any(_reads(one, key, experiment) for one in read))
    if idle:
        raise UserError(f"range {idle[0]}: validation does not read it; remove this range")
    return space


def _validated(study: Study, system: str, experiment: Experiment) -> tuple[str, str]:
    """The stage that has the validation value of a system, and the folder of its log."""
    found = validation_log(system)
    stages = STAGES[experiment.method]
    if (
        found is None
        or found[0] not in stages
        or (study.command == "baseline" and found[0] != "teach")
    ):
        raise UserError(
            f"--search: the study's first system is {system!r}, for which validation selects nothing with "
            f"method={experiment.method} and the study's command {study.command!r}: search for one that is trained, such as "
            "'delrec', 'teacher_augmented' or 'teacher'"
        )
    if study.metric not in (allowed := measured_of(system)):
        raise UserError(
            f"--search: the study's metric is {study.metric}, which validation does not measure: use {' or '.join(allowed)}"
        )
    return found


def _unread(stage: str, system: str) -> dict[str, Any]:
    """No controls but the one that is searched for, if it is one."""
    if stage == "tune":
        own = () if system == "delrec" else (TUNED[system],)
        trained = tuple(prompt for prompt in own if prompt in TRAINED_CONTROLS)
        return {"tune.controls": own, "distill.controls": trained}
    if stage == "augment":
        return {"augment.controls": tuple(c for c, one in CONTROL_SYSTEMS.items() if one == system)}
    return {}


def _needed(stage: str, table: Mapping[str, Stage]) -> list[str]:
    """A stage and all that it needs, in the order of the data."""
    found, left = set(), [stage]
    while left:
        found.add(one := left.pop())
        left += table[one].needs
    return [one for one in table if one in found]


def _reads(stage: Stage, key: str, experiment: Experiment) -> bool:
    settings = (*keys_read(stage, experiment), *stage.judged_by)
    return any(key == one or key.startswith(f"{one}.") for one in settings)


class TrialProcess:
    """A trial that is being executed: its process, which waits until no other executes one of its stages."""

    def __init__(self, root: Path, job: Job, ws: Workspace, space: Space, taken: set[str]):
        """Starts nothing yet.

        Args:
          root: of the study.
          job: the trial's own stages.
          ws: its workdir.
          space: what is read of it.
          taken: the keys of stages that are being executed; shared by all trials of this process.
        """
        self._root, self._job, self._ws, self._space, self._taken = root, job, ws, space, taken
        self._process: subprocess.Popen[bytes] | None = None
        self._told = 0.0  # when it was told to end

    def ended(self) -> str | None:
        """None while it goes on, "" once it is done or has ended as it was told to, or else why it failed."""
        if self._process is None:
            return self._begun()
        status = self._process.poll()
        if status is None:
            if self._told and time.monotonic() - self._told > processes.GRACE:
                self._process.kill()
            return None
        self._process = None
        self._taken -= set(self._job.keys)
        if status == 0 or self._told:
            return ""
        return None if status in _AGAIN else processes.last_words(self._root, self._job, status)

    def _begun(self) -> str | None:
        if self._told or all(self._ws.finished(stage) for stage in self._job.stages):
            return ""
        places = (self._ws.root, *lock_places(self._ws, self._job.stages))
        if not self._taken & set(self._job.keys) and not any(map(in_use, places)):
            self._taken |= set(self._job.keys)
            self._process = processes.start(self._root, self._job)
        return None

    def validation(self) -> dict[int, float]:
        """The metric on the validation users so far, by training step."""
        space = self._space
        if not space.log:
            return {}
        log = self._ws.folder(space.stage) / space.log / "metrics.jsonl"
        return validation_so_far(log, space.study.metric)

    def value(self) -> float:
        """The metric on the validation users, at the step that was selected.

        Raises:
          UserError: there is none.
        """
        run = self._job.run
        found = validation(self._space.study, [run], {run.name: self._ws}, required=True)
        return found[run.arm.name][0]

    def end(self) -> None:
        """Tells it to end; it saves where it is."""
        self._told = self._told or time.monotonic()
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> None:
        """Waits until it has ended; kills it if it does not."""
        if self._process is not None:
            processes.end([self._process])


class TrialRuns:
    """Begins the trials of a search in a study's workdir."""

    def __init__(self, root: Path, space: Space):
        """Begins nothing yet."""
        self._root, self._space = root, space
        self._taken: set[str] = set()

    def begin(self, number: int, drawn: Mapping[str, Any]) -> TrialProcess:
        """Opens the workdir of a trial.

        Raises:
          UserError: its values do not go together.
        """
        run = self._space.run(f"{TRIAL}{number}", drawn)
        job, ws = self._opened(run, own=True)
        return TrialProcess(self._root, job, ws, self._space, self._taken)

    def common(self) -> tuple[Job, Workspace]:
        """What is executed once for all trials, before the first; the job may have no stages."""
        return self._opened(self._space.run(COMMON, {}), own=False)

    def _opened(self, run: StudyRun, *, own: bool) -> tuple[Job, Workspace]:
        common, others = self._space.stages(run.experiment)
        ws = open_workdir(self._root, run, (*common, *others))
        stages = others if own else common
        keys = tuple(stage_key(ws, stage) for stage in stages)
        return Job(run, stages, keys, (run.name,)), ws
