"""Runs stages in order: finished ones are skipped, interrupted ones resume."""

import importlib
import time
from collections.abc import Callable
from typing import Any

from delrec_jax.distributed import as_main_sees, on_main
from delrec_jax.errors import UserError
from delrec_jax.files import expanded
from delrec_jax.language import hub
from delrec_jax.stages.baseline import print_baseline
from delrec_jax.stages.inputs import Inputs
from delrec_jax.stages.out_of_memory import memory_told
from delrec_jax.stages.prepare import is_outdated
from delrec_jax.teachers.registry import LISTS
from delrec_jax.training.preemption import end_if_told
from delrec_jax.training.writers import say
from delrec_jax.workdir.listed_teacher import lists_changed
from delrec_jax.workdir.spread_scores import spread_over
from delrec_jax.workdir.stage_table import Stage, adapting_stages, stages_of
from delrec_jax.workdir.workspace import Workspace

_SOURCES_CHANGED: dict[str, Callable[[Workspace], bool]] = {
    "prepare": is_outdated,
    "teach": lists_changed,
}
"""The stages that read files of the user's, and whether these have changed since."""


def sources_changed(ws: Workspace, stage: str) -> bool:
    """Returns whether files of the user's that a finished stage has read are not what they were."""
    changed = _SOURCES_CHANGED.get(stage)
    return changed is not None and changed(ws)


def run_stage(ws: Workspace, stage: str, inputs: Inputs | None = None) -> None:
    """Runs one stage unless it is finished; the report is always made (and printed) again.

    Args:
      ws: the workdir.
      stage: its name.
      inputs: what earlier stages of the same command have read; None = nothing yet.

    Raises:
      UserError: the method has no such stage, or a stage that it needs is not finished.
    """
    spec, inputs = ws.spec(stage), inputs or Inputs(ws)
    if stage != "report" and as_main_sees(lambda: ws.finished(stage)):
        if not as_main_sees(lambda: sources_changed(ws, stage)):
            ws.check_intact(stage)
            say(f"{stage}: finished before, skipped")
            return
        say(f"{stage}: the source files have changed since; everything made from them is remade")
    elif stage != "report" and as_main_sees(lambda: ws.outdated(stage)):
        changed = "its settings, a file of yours or an earlier stage have changed since"
        say(f"{stage}: {ws.earlier_format(stage) or changed}; it is run again")
    _check_named_files(ws, stage)
    say(f"{stage} ...")
    started = time.monotonic()
    ws.begin(stage)
    run = _function(spec)
    with memory_told(stage, spec, ws.experiment):
        if stage == "prepare":  # it only handles tables and files, so one process is enough
            on_main(lambda: run(ws))
        else:
            run(ws, *(getattr(inputs, name) for name in spec.reads))
    ws.finish(stage)
    say(f"{stage}: done in {time.monotonic() - started:.0f} s")


def _check_named_files(ws: Workspace, stage: str) -> None:
    """Refuses what a setting names and is not there, before the results of the settings before are removed."""
    experiment = ws.experiment
    if stage == "pretrain" and experiment.lm.weights:
        hub.weight_files(hub.resolve(experiment.lm.weights))
    if stage == "teach" and experiment.teacher.name == LISTS:
        lists = experiment.teacher.lists
        if lists and not expanded(lists).is_file():
            raise UserError(f"teacher.lists={lists}: there is no such file; correct the path")


def run_all(ws: Workspace) -> None:
    """Runs every stage of the method in the order of the data."""
    inputs = Inputs(ws)
    check_batch_sizes(ws)
    for stage in stages_of(ws.experiment.method, "run"):
        end_if_told()
        run_stage(ws, stage, inputs)


def check_batch_sizes(ws: Workspace) -> None:
    """Refuses batches that do not divide over the devices now, and not when a later stage begins.

    Raises:
      UserError: the batch of a stage that is to train does not divide.
    """
    experiment = ws.experiment
    layout = spread_over(experiment)
    ways = 1 if layout is None else layout.ways
    sections: dict[str, Any] = {
        stage: getattr(experiment, stage) for stage in adapting_stages(experiment.method)
    }
    if experiment.teacher.network:
        sections["teach"] = experiment.teacher
    for stage in stages_of(experiment.method, "run"):
        rows = sections[stage].batch_size if stage in sections else ways
        if rows % ways and not as_main_sees(lambda stage=stage: ws.finished(stage)):
            name = "teacher" if stage == "teach" else stage
            raise UserError(
                f"{name}.batch_size is {rows}, which does not divide over {ways} devices: use a multiple of {ways}, or change "
                "the mesh"
            )


def run_baseline(ws: Workspace) -> None:
    """Prepares the corpus, trains the teacher and prints its tables: everything that needs no language model."""
    inputs = Inputs(ws)
    for stage in stages_of(ws.experiment.method, "baseline"):
        run_stage(ws, stage, inputs)
    on_main(lambda: print_baseline(ws, inputs.data))


def _function(stage: Stage) -> Callable[..., None]:
    module, _, name = stage.runs.partition(":")
    found: Callable[..., None] = getattr(importlib.import_module(f"delrec_jax.{module}"), name)
    return found
