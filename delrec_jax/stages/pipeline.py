"""All stages in order: what is finished is skipped, what was interrupted goes on."""

import time
from collections.abc import Callable

from delrec_jax.delrec.distill import distill
from delrec_jax.delrec.evaluate import evaluate
from delrec_jax.delrec.report import report
from delrec_jax.delrec.tune import tune
from delrec_jax.distributed import as_main_sees, on_main
from delrec_jax.p2rec.augment import augment
from delrec_jax.p2rec.evaluate import evaluate_teachers
from delrec_jax.p2rec.parse import parse
from delrec_jax.p2rec.report import report_p2rec
from delrec_jax.pretraining.pretrain import pretrain
from delrec_jax.stages.baseline import baseline, print_baseline
from delrec_jax.stages.prepare import is_outdated, prepare
from delrec_jax.stages.teach import teach
from delrec_jax.training.writers import say
from delrec_jax.workdir.workspace import Workspace

Runner = Callable[[Workspace], None]
RUNNERS: dict[str, Runner] = {
    "prepare": prepare,
    "pretrain": pretrain,
    "teach": teach,
    "baseline": baseline,
    "parse": parse,
    "augment": augment,
    "distill": distill,
    "tune": tune,
    "evaluate": evaluate,
    "report": report,
}
# P2Rec alone compares recommenders and has no language system to rank.
_P2REC = RUNNERS | {"evaluate": evaluate_teachers, "report": report_p2rec}


def run_stage(ws: Workspace, stage: str) -> None:
    """Runs one stage unless it is finished; the report is always made (and printed) again.

    Raises:
      UserError: the method has no such stage, or a stage that it needs is not finished.
    """
    if stage != "report" and as_main_sees(lambda: ws.finished(stage)):
        if not (stage == "prepare" and as_main_sees(lambda: is_outdated(ws))):
            say(f"{stage}: finished before, skipped")
            return
        say("prepare: the source files have changed since; all that rests on them is made anew")
    say(f"{stage} ...")
    started = time.monotonic()
    ws.begin(stage)
    if stage == "prepare":  # of tables and files alone: no device takes part
        on_main(lambda: prepare(ws))
    else:
        (_P2REC if ws.experiment.method == "p2rec" else RUNNERS)[stage](ws)
    ws.finish(stage)
    say(f"{stage}: done in {time.monotonic() - started:.0f} s")


def run_all(ws: Workspace) -> None:
    """Every stage of the method in the order of the data."""
    for stage in ws.stages:
        if stage != "baseline":
            run_stage(ws, stage)


def run_baseline(ws: Workspace) -> None:
    """The corpus, the teacher and its tables: all that needs no language model."""
    for stage in ("prepare", "teach", "baseline"):
        run_stage(ws, stage)
    on_main(lambda: print_baseline(ws))
