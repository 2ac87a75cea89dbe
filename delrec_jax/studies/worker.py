"""The process that executes one job of a study: `python -m delrec_jax.studies.worker JOB.json`.

It ends as every command does, with one line and a status; and it ends where it is, to be resumed, if the study's own process
is gone.
"""

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from delrec_jax.config import from_config
from delrec_jax.endings import reported
from delrec_jax.stages.inputs import Inputs
from delrec_jax.stages.pipeline import run_stage, sources_changed
from delrec_jax.studies import journal
from delrec_jax.studies.sharing import lock_places
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.session import WorkdirInUse, keep_compiled, locked, session
from delrec_jax.workdir.workspace import Workspace

BUSY = 3
"""Exit status if another process is using the run's workdir."""

_LOOKS = 1.0  # seconds between two looks for the parent


def main(path: Path) -> None:
    """Executes the stages that a job file names and notes each in the study's journal.

    Args:
      path: JSON with `root` (the study's workdir), `run` (its name), `stages`, `settings`, and `code`: the commit, for the
        journal.
    """
    end_with_parent()
    with reported(process=True):
        try:
            execute(read_json(path))
        except WorkdirInUse:
            sys.exit(BUSY)


def execute(job: dict[str, Any]) -> None:
    """Executes a job's stages, those that are finished excepted."""
    root, experiment = Path(job["root"]), from_config(ConfigDict(job["settings"]))
    workdir = root / "runs" / job["run"]
    keep_compiled(workdir)
    with session(workdir, experiment):
        ws = Workspace(workdir, experiment, update=True)
        with ExitStack() as held, ws.watch.trackers:
            for place in lock_places(ws, job["stages"]):
                held.enter_context(locked(place))
            _execute(job, root, ws)


def _execute(job: dict[str, Any], root: Path, ws: Workspace) -> None:
    inputs = Inputs(ws)
    for stage in job["stages"]:
        new = not ws.finished(stage) or sources_changed(ws, stage)
        start, began = datetime.now(UTC), time.monotonic()
        run_stage(ws, stage, inputs)
        if new:
            journal.note(
                root,
                run=job["run"],
                stage=stage,
                start=start.strftime("%Y-%m-%d %H:%M:%S UTC"),
                seconds=round(time.monotonic() - began, 2),
                **job["code"],
            )


def end_with_parent() -> None:
    """Watches for the end of the parent process and then sends this one SIGTERM, which saves what there is."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
