"""Executes the jobs of a study: several processes at a time, each job after those that it needs, none of them twice.

A failed job stops what depends on it and nothing else. Other processes may execute the same study, each with a shard of its
runs: who holds a workdir's lock executes its job, and the others wait for the result.
"""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from delrec_jax.stages.pipeline import sources_changed
from delrec_jax.studies import journal, processes
from delrec_jax.studies.sharing import Job, lock_places
from delrec_jax.studies.worker import BUSY
from delrec_jax.training.writers import say
from delrec_jax.workdir.session import in_use
from delrec_jax.workdir.workspace import Workspace

_LOOKS = 0.1  # seconds between two looks at the processes
_LOOKS_ELSEWHERE = 2.0  # ... and at what other processes have finished


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float
    slot: int


class Schedule:
    """The jobs that are to do, running, done and failed."""

    def __init__(self, root: Path, jobs: Sequence[Job], workdirs: Mapping[str, Workspace]):
        """Looks at what is finished.

        Args:
          root: the study's workdir.
          jobs: all that this process is to see done, each after those that it needs.
          workdirs: of the runs, by name.
        """
        self._root, self._workdirs = root, workdirs
        self._finished: set[str] = set()  # keys
        self.failed: dict[str, str] = {}
        """Why a job was not done, by the job's text."""
        self._running: list[_Running] = []
        self._open = []
        for job in jobs:
            if self._is_there(job):
                self._finished |= set(job.keys)
            else:
                self._open.append(job)
        self._total, self._processes = len(jobs), 1

    @property
    def open(self) -> list[Job]:
        """The jobs that are neither done nor failed."""
        return [*(one.job for one in self._running), *self._open]

    def execute(self, at_once: int) -> None:
        """Executes everything that is open.

        Args:
          at_once: how many processes.
        """
        self._processes = at_once
        looked = -_LOOKS_ELSEWHERE
        try:
            while self._open or self._running:
                self._reap()
                if time.monotonic() - looked >= _LOOKS_ELSEWHERE:
                    looked = time.monotonic()
                    self._see_others()
                self._start_ready(at_once)
                time.sleep(_LOOKS)
        finally:
            processes.end([one.process for one in self._running])

    def _ws(self, job: Job) -> Workspace:
        return self._workdirs[job.run.name]

    def _is_there(self, job: Job) -> bool:
        """Whether what a job makes is finished, of what it needs as that is now, and of the source files as they are."""
        ws = self._ws(job)
        return (
            job.needs <= self._finished
            and all(ws.finished(stage) for stage in job.stages)
            and not any(sources_changed(ws, stage) for stage in job.stages)
        )

    def _start_ready(self, at_once: int) -> None:
        busy = {one.job.run.name for one in self._running}
        for job in list(self._open):
            if len(self._running) >= at_once:
                return
            if job.run.name in busy or not job.needs <= self._finished:
                continue
            places = (self._ws(job).root, *lock_places(self._ws(job), job.stages))
            if any(map(in_use, places)):  # by another shard, or by what is left of a killed study
                continue
            self._open.remove(job)
            busy.add(job.run.name)
            taken = {one.slot for one in self._running}
            slot = next(slot for slot in range(at_once) if slot not in taken)
            process = processes.start(self._root, job, slot=slot, slots=at_once)
            self._running.append(_Running(job, process, time.monotonic(), slot))

    def _reap(self) -> None:
        for one in list(self._running):
            status = one.process.poll()
            if status is None:
                continue
            self._running.remove(one)
            if status == 0:
                self._finish(one.job, time.monotonic() - one.started)
            elif status == BUSY:  # another shard was quicker
                self._open.insert(0, one.job)
            else:
                self._fail(one.job, processes.last_words(self._root, one.job, status))

    def _see_others(self) -> None:
        """Takes over what other processes have finished."""
        for job in list(self._open):
            if self._is_there(job):
                self._open.remove(job)
                self._finish(job, None)

    def _finish(self, job: Job, seconds: float | None) -> None:
        self._finished |= set(job.keys)
        how = "is there" if seconds is None else f"done in {seconds:.0f} s"
        shared = f", for {len(job.users)} runs" if len(job.users) > 1 else ""
        done = self._total - len(self.open) - len(self.failed)
        say(f"[{done}/{self._total}] {job}{shared}: {how}{self._time_left()}")

    def _time_left(self) -> str:
        stages = [stage for job in self.open for stage in job.stages]
        if not stages:
            return ""
        left = journal.seconds_left(journal.read(self._root), stages, self._processes)
        if left is None:
            return "; time left: not known until each stage has run once"
        return f"; about {max(1, round(left / 60))} min left"

    def _fail(self, job: Job, reason: str) -> None:
        self.failed[str(job)] = reason
        say(f"{job}: FAILED: {reason}")
        lost = set(job.keys)
        for other in list(self._open):
            if other.needs & lost:
                self._open.remove(other)
                lost |= set(other.keys)
                self.failed[str(other)] = f"needs {job}, which failed"
                say(f"{other}: not run, as {job} failed")


def described(jobs: Sequence[Job]) -> str:
    """What would run, and what is shared: one line per job.

    Args:
      jobs: in their order.
    """
    lines = []
    for job in jobs:
        stages = ", ".join(job.stages)
        if len(job.users) > 1:
            lines.append(f"  {stages}: once for {len(job.users)} runs ({_few(job.users)})")
        else:
            lines.append(f"  {stages}: for {job.users[0]}")
    return "\n".join(lines)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown}, ..."
