"""What the runs of a study share: every stage with the same settings is run once, and its folder is linked into each workdir.

A stage's `plan_key` names its folder in `stages/`, so that what arms share does not depend on which of them runs first, or on
arms that are added or removed later. Stages that the same runs use go into one job, which is one process.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from delrec_jax.errors import UserError
from delrec_jax.studies.runs import StudyRun
from delrec_jax.workdir.stage_table import stages_of
from delrec_jax.workdir.workspace import Workspace

_SHOWN = 12  # letters of a key in the name of a folder


@dataclass(frozen=True)
class Job:
    """Stages of one run that one process executes, for all runs that use them.

    Attributes:
      run: the run in whose workdir they are executed: the first of those that use them.
      stages: in their order.
      keys: of these stages.
      users: the names of the runs that use their results.
      needs: the keys of earlier stages that they read.
    """

    run: StudyRun
    stages: tuple[str, ...]
    keys: tuple[str, ...]
    users: tuple[str, ...]
    needs: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        """How messages name it."""
        return f"{self.run.name}: {', '.join(self.stages)}"


def open_workdir(root: Path, run: StudyRun, stages: Sequence[str]) -> Workspace:
    """Opens a run's workdir with links to the folders of its stages; both are made where they do not exist.

    A stage folder whose settings have changed is left where it is, and the link goes to another.

    Args:
      root: the study's workdir.
      run: a run.
      stages: those that are executed for it.
    """
    ws = Workspace(root / "runs" / run.name, run.experiment, update=True)
    for stage in stages:
        if stage == "report":  # it is made again each time
            continue
        store = root / "stages" / f"{stage}-{ws.plan_key(stage)[:_SHOWN]}"
        store.mkdir(parents=True, exist_ok=True)
        _link(ws.folder(stage), store)
    return ws


def _link(link: Path, target: Path) -> None:
    """Makes a relative link, so that a study can be moved; it replaces an older one at once, as others may be reading.

    Raises:
      UserError: there is a folder in its place.
    """
    wanted = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == wanted:
        return
    if link.is_dir() and not link.is_symlink():
        raise UserError(
            f"{link}: a folder, where the runs of a study have a link to the stage that they share: copy a study with its "
            f"links, as by cp -a, or remove {link.parent}"
        )
    partial = link.with_name(f".{link.name}.link-{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(wanted, target_is_directory=True)
    os.replace(partial, link)


def lock_places(ws: Workspace, stages: Sequence[str]) -> list[Path]:
    """The folders whose locks (`session.locked`) whoever executes these stages holds.

    Runs of several studies, or of a study and a search in its workdir, may share a stage's folder, and no workdir's lock tells.
    """
    stores = [ws.folder(stage).resolve() for stage in stages if ws.folder(stage).is_symlink()]
    return [store.parent / ".locks" / store.name for store in stores]


def study_jobs(
    runs: Sequence[StudyRun], workdirs: Mapping[str, Workspace], command: str
) -> list[Job]:
    """The jobs of a study, each after those that it needs.

    Args:
      runs: all runs.
      workdirs: their workdirs, by name.
      command: `run` or `baseline`.
    """
    users: dict[str, list[str]] = {}  # by key
    for run in runs:
        for stage in stages_of(run.experiment.method, command):
            users.setdefault(stage_key(workdirs[run.name], stage), []).append(run.name)
    jobs = []
    done: set[str] = set()
    for run in runs:
        ws = workdirs[run.name]
        groups: dict[tuple[str, ...], list[str]] = {}
        for stage in stages_of(run.experiment.method, command):
            if (key := stage_key(ws, stage)) not in done:
                done.add(key)
                groups.setdefault(tuple(users[key]), []).append(stage)
        jobs += [_job(run, ws, stages, names) for names, stages in groups.items()]
    return jobs


def _job(run: StudyRun, ws: Workspace, stages: Sequence[str], users: tuple[str, ...]) -> Job:
    keys = tuple(stage_key(ws, stage) for stage in stages)
    needed = {stage_key(ws, need) for stage in stages for need in ws.spec(stage).needs}
    return Job(run, tuple(stages), keys, users, frozenset(needed - set(keys)))


def stage_key(ws: Workspace, stage: str) -> str:
    """What tells a stage of one run from that of others: a report belongs to its run, even where two have the same results."""
    return f"{stage}-{ws.root.name}" if stage == "report" else f"{stage}-{ws.plan_key(stage)}"
