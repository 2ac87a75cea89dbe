"""`delrec study`: every arm of a study with every seed, what they share once, and then the tables."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from delrec_jax.errors import UserError, differences
from delrec_jax.studies.runs import StudyFile, StudyRun, study_runs
from delrec_jax.studies.scheduling import Schedule, described
from delrec_jax.studies.sharing import Job, open_workdir, study_jobs
from delrec_jax.studies.study import Study
from delrec_jax.training.preemption import end_at_sigterm
from delrec_jax.training.writers import say
from delrec_jax.workdir.workspace import Workspace, read_json, write_json


@dataclasses.dataclass(frozen=True)
class Opened:
    """A study with its runs, their workdirs and its jobs."""

    root: Path
    study: Study
    runs: list[StudyRun]
    workdirs: dict[str, Workspace]
    jobs: list[Job]


def leave_devices() -> None:
    """Leaves accelerators to the processes that a study starts, and lets SIGTERM end it in an orderly way."""
    jax.config.update("jax_platforms", "cpu")
    end_at_sigterm()


def open_study(file: StudyFile, base: ConfigDict, root: Path, *, update: bool = False) -> Opened:
    """Opens a study's workdir: `study.json`, a workdir per run, and the folders that they share.

    Args:
      file: the study file.
      base: the config that its arms change.
      root: the study's workdir.
      update: whether it may have been another study's.

    Raises:
      UserError: the workdir belongs to another study and `update` is not set, or the study's arms are refused.
    """
    study = file.study(base)
    runs = study_runs(study, base)
    _claim(root, study, base, update=update)
    workdirs = {run.name: open_workdir(root, run, study.command) for run in runs}
    return Opened(root, study, runs, workdirs, study_jobs(runs, workdirs, study.command))


def execute(opened: Opened, *, processes: int = 1, shard: tuple[int, int] = (0, 1)) -> None:
    """Executes what is not finished.

    Args:
      opened: the study.
      processes: how many at a time.
      shard: (i, n): only the runs i, i + n, i + 2n, ..., and what they share with others.

    Raises:
      UserError: some jobs failed; everything that does not depend on them is done.
    """
    index, shards = shard
    mine = {run.name for run in opened.runs[index::shards]}
    jobs = [job for job in opened.jobs if mine & set(job.users)]
    schedule = Schedule(opened.root, jobs, opened.workdirs)
    say(f"{len(opened.runs)} runs, {len(jobs)} jobs, {len(schedule.open)} to do")
    schedule.execute(processes)
    if schedule.failed:
        first, why = next(iter(schedule.failed.items()))
        raise UserError(
            f"{len(schedule.failed)} of {len(jobs)} jobs were not done, first {first}: {why}; all others are; the same "
            "command tries them again"
        )


def told(opened: Opened) -> str:
    """What a study would run: its question, its runs, and what they share."""
    study = opened.study
    stages = [key for job in opened.jobs for key in job.keys]
    alone = sum(len(job.users) * len(job.keys) for job in opened.jobs)
    arms = "\n".join(
        f"  {arm.name}" + "".join(f"  {key}={value!r}" for key, value in arm.changes.items())
        for arm in study.arms
    )
    return (
        f"{study.question}\n\n{len(study.arms)} arms x {len(study.seeds)} seeds = {len(opened.runs)} runs:\n{arms}\n\n"
        f"{len(stages)} stages in {len(opened.jobs)} processes; without sharing it would be {alone} stages:\n"
        f"{described(opened.jobs)}"
    )


def parse_shard(text: str) -> tuple[int, int]:
    """Reads `i/n`.

    Raises:
      UserError: it is not two numbers with 0 <= i < n.
    """
    parts = text.split("/")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        index, shards = int(parts[0]), int(parts[1])
        if index < shards:
            return index, shards
    raise UserError(
        f"--shard={text}: give I/N, with I from 0 to N - 1, such as --shard=0/4 in the first of four processes"
    )


def _claim(root: Path, study: Study, base: ConfigDict, *, update: bool) -> None:
    """Writes `study.json`, so that a workdir never holds the runs of two studies unnoticed."""
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
    there, here = (_leaves(json.loads(json.dumps(one))) for one in (before, now))
    changed = differences({key: (there.get(key), here.get(key)) for key in {**there, **here}})
    if changed:
        raise UserError(
            f"--workdir={root} belongs to another study: {changed}; give another --workdir, or --update to run what the "
            "change affects (finished stages are kept)"
        )


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """All values of nested dictionaries and lists by dotted key."""
    if isinstance(value, list):
        value = {str(place): one for place, one in enumerate(value)}
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    found: dict[str, Any] = {}
    for name, one in value.items():
        found |= _leaves(one, f"{prefix}{name}.")
    return found
