"""The processes that execute jobs: a file tells each what to do, and what it says goes into a log of its run."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from delrec_jax.config import to_dict
from delrec_jax.results.provenance import commit
from delrec_jax.studies.devices import VISIBLE, share_of, visible_gpus
from delrec_jax.studies.sharing import Job
from delrec_jax.workdir.json_files import write_json

GRACE = 60.0
"""Seconds in which a process that is told to end may save its state."""


def start(root: Path, job: Job, *, slot: int = 0, slots: int = 1) -> subprocess.Popen[bytes]:
    """Starts the process of a job.

    Args:
      root: the study's workdir.
      job: what it executes.
      slot: number of the process among those that run at a time, which share the GPUs.
      slots: how many run at a time.
    """
    folder = root / "logs"
    folder.mkdir(exist_ok=True)
    order = root / "jobs" / f"{job.run.name}-{job.stages[0]}.json"
    told = {
        "root": str(root.absolute()),
        "run": job.run.name,
        "stages": job.stages,
        "settings": to_dict(job.run.experiment),
        "code": commit(),
    }
    write_json(order, told)
    with (folder / f"{job.run.name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "delrec_jax.studies.worker", str(order)],
            env=_environment(slot, slots),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _environment(slot: int, slots: int) -> dict[str, str]:
    """The variables of this process, and which GPUs belong to that of a slot."""
    own = share_of(visible_gpus(os.environ), slot, slots)
    return {**os.environ, **({VISIBLE: ",".join(own)} if own else {})}


def last_words(root: Path, job: Job, status: int) -> str:
    """The last line that the process of a failed job said, its status, and where its log is."""
    path = root / "logs" / f"{job.run.name}.log"
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "it said nothing"
    return f"{said} (status {status}, {path})"


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Tells processes to end and waits until they have; those that do not are killed."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
