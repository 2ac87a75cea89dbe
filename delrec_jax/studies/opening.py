"""A study's workdir: what it was asked, a workdir per run, and the folders that they share.

STUDY/study.json            the study and its base config: another study is refused
STUDY/stages/STAGE-KEY/     what a stage made, once for all runs with these settings; `stages` may be a link to that of
                            another study: what both have in common is then made once
STUDY/runs/ARM-SEED/        an ordinary workdir; its folders are links to those of `stages/`
STUDY/jobs/, logs/          what the processes were told to do, and what they said
STUDY/journal.jsonl         a line per stage that was run, with its time
STUDY/summary.json, tables.md, index.html       what came out
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from delrec_jax.config import Experiment
from delrec_jax.errors import UserError, differences
from delrec_jax.studies.ranges import fitted
from delrec_jax.studies.runs import StudyFile, StudyRun, study_runs
from delrec_jax.studies.selection import measured_of, validation_log
from delrec_jax.studies.sharing import Job, open_workdir, study_jobs
from delrec_jax.studies.study import Study
from delrec_jax.workdir.json_files import read_json, write_json
from delrec_jax.workdir.stage_table import stages_of
from delrec_jax.workdir.workspace import Workspace

RANKS = {"run": "evaluate", "baseline": "baseline"}
"""The stage that ranks the test users, by the study's command."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A study with its runs, their workdirs and its jobs."""

    root: Path
    study: Study
    runs: list[StudyRun]
    workdirs: dict[str, Workspace]
    jobs: list[Job]

    @property
    def reference(self) -> Experiment:
        """The experiment of the reference's first run."""
        name = self.study.reference
        return next(run.experiment for run in self.runs if run.arm.name == name)

    @property
    def done(self) -> list[StudyRun]:
        """The runs that have their rank records."""
        return [run for run in self.runs if self.finished(run)]

    def records(self, run: StudyRun) -> Path:
        """Where the rank records of a run lie."""
        return self.workdirs[run.name].folder(RANKS[self.study.command]) / "records.parquet"

    def finished(self, run: StudyRun) -> bool:
        """Whether a run has its rank records."""
        return self.workdirs[run.name].finished(RANKS[self.study.command])


def open_study(file: StudyFile, base: ConfigDict, root: Path, *, update: bool = False) -> Opened:
    """Opens a study's workdir: `study.json`, a workdir per run, and the folders that they share.

    Args:
      file: the study file.
      base: the config that its arms change.
      root: the study's workdir.
      update: whether it may have been another study's.

    Raises:
      UserError: the workdir belongs to another study and `update` is not set, or the study's arms or ranges are refused.
    """
    study = file.study(base)
    fitted(study.ranges, base)
    if not study.arms:
        raise UserError(
            f"{file.path}: has ranges and no arms: give --search=N, the number of trials"
        )
    if study.tuned and (study.command != "run" or validation_log(study.systems[0]) is None):
        raise UserError(
            f"{file.path}: validation is to choose an arm (tuned=True), but it has no value of {study.systems[0]!r} where the "
            f"command is {study.command!r}: name a trained system first, such as 'delrec', or set tuned=False"
        )
    for system in {study.systems_of(arm)[0] for arm in study.arms} if study.tuned else ():
        if study.metric not in (known := measured_of(system)):
            raise UserError(
                f"{file.path}: validation is to choose an arm (tuned=True), but it measures no {study.metric} of {system!r}: "
                f"use {' or '.join(known) or 'another system'}, or set tuned=False"
            )
    runs = study_runs(study, base)
    claim(root, study, base, update=update)
    workdirs = {
        run.name: open_workdir(root, run, stages_of(run.experiment.method, study.command))
        for run in runs
    }
    return Opened(root, study, runs, workdirs, study_jobs(runs, workdirs, study.command))


def claim(root: Path, study: Study, base: ConfigDict, *, update: bool) -> None:
    """Writes `study.json`, so that a workdir never holds the runs of two studies unnoticed.

    Args:
      root: the study's workdir.
      study: what it is asked.
      base: the config that its arms change.
      update: whether it may have been another study's.

    Raises:
      UserError: it is another study's and `update` is not set, or it cannot be written.
    """
    path = root / "study.json"
    settings: dict[str, Any] = {
        "study": dataclasses.asdict(study),
        "base": base.to_dict(),
    }
    try:
        if path.exists() and not update:
            _check_same(root, read_json(path), settings)
        root.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    except OSError as error:
        raise UserError(
            f"--workdir={root}: cannot be used ({error}); give a folder that you can write to"
        ) from error


def _check_same(root: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if changed := changes(before, now):
        raise UserError(
            f"--workdir={root} belongs to another study: {changed}; give another --workdir, or --update to run what the "
            "change affects (finished stages are kept)"
        )


def changes(before: Any, now: Any) -> str:
    """Names the keys in which nested settings differ, as JSON would hold them; "" if in none.

    Args:
      before: what was stored.
      now: what is asked.
    """
    there, here = (_leaves(json.loads(json.dumps(one))) for one in (before, now))
    return differences({key: (there.get(key), here.get(key)) for key in {**there, **here}})


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """All values of nested dictionaries and lists by dotted key; an empty one has none."""
    if isinstance(value, list):
        value = {str(place): one for place, one in enumerate(value)}
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    found: dict[str, Any] = {}
    for name, one in value.items():
        found |= _leaves(one, f"{prefix}{name}.")
    return found
