"""`delrec study`: every arm of a study with every seed, what they share once, and then the tables."""

import math
import os

import jax

from delrec_jax.errors import UserError
from delrec_jax.results.provenance import commit
from delrec_jax.studies import journal
from delrec_jax.studies.beyond import study_rows
from delrec_jax.studies.devices import has_tpu, visible_gpus
from delrec_jax.studies.opening import Opened
from delrec_jax.studies.scheduling import Schedule, described
from delrec_jax.studies.summary import summarise
from delrec_jax.studies.tables import write
from delrec_jax.training.preemption import end_at_sigterm
from delrec_jax.training.writers import say
from delrec_jax.workdir.session import one_at_a_time

_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_SHARED = 0.9  # of a GPU's memory; one process alone would take three quarters at its start, and leave a second one too little


def leave_devices(processes: int = 1) -> None:
    """Leaves accelerators to the processes that a study starts, and lets SIGTERM end it in an orderly way.

    Args:
      processes: how many run at a time; where a GPU has several, they share its memory, unless the environment says how.

    Raises:
      UserError: several are to run at a time on a TPU.
    """
    if processes > 1 and has_tpu(os.environ):
        raise UserError(
            f"--jobs={processes}: the chips of a TPU belong to one process at a time; use --jobs=1, or several machines with "
            "--shard"
        )
    jax.config.update("jax_platforms", "cpu")
    together = math.ceil(processes / max(1, len(visible_gpus(os.environ))))
    if together > 1 and not any(name in os.environ for name in _FRACTIONS):
        os.environ[_FRACTIONS[0]] = f"{_SHARED / together:.3f}"
    end_at_sigterm()


def execute(
    opened: Opened,
    *,
    processes: int = 1,
    shard: tuple[int, int] = (0, 1),
    show_test: bool = False,
) -> None:
    """Executes what is not finished, and writes the tables of what is.

    Args:
      opened: the study.
      processes: how many at a time.
      shard: (i, n): only the runs i, i + n, i + 2n, ..., and what they share with others.
      show_test: whether a tuned study shows the test figures of arms that validation did not choose.

    Raises:
      UserError: some jobs failed; everything that does not depend on them is done.
    """
    index, shards = shard
    mine = {run.name for run in opened.runs[index::shards]}
    jobs = [job for job in opened.jobs if mine & set(job.users)]
    schedule = Schedule(opened.root, jobs, opened.workdirs)
    say(f"{len(opened.runs)} runs, {len(jobs)} jobs, {len(schedule.open)} to do")
    other = journal.other_code(journal.read(opened.root), commit())
    if other and schedule.open:
        say(
            f"WARNING: finished stages were made by other code than this: {', '.join(other)}; where the package has changed in "
            "what stages do, arms differ by more than their settings: take a new --workdir"
        )
    schedule.execute(processes)
    arms = {run.arm.name for run in opened.done}
    if opened.study.reference in arms or (arms and not opened.study.tuned):
        with one_at_a_time(opened.root / ".tables"):  # shards may end at the same time
            rows = study_rows(opened)
            print(write(opened, summarise(opened, rows, show_test=show_test), rows))
    if schedule.failed:
        first, why = next(iter(schedule.failed.items()))
        others = "; all others are" if len(schedule.failed) < len(jobs) else ""
        raise UserError(
            f"{len(schedule.failed)} of {len(jobs)} jobs were not done, first {first}: {why}{others}; the same command "
            "tries them again"
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
