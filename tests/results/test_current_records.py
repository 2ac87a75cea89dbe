"""Records that lie in a workdir from before its settings were changed are no results of it."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from evidence_workdirs import HALF, SOME, table

from delrec_jax.config import Experiment
from delrec_jax.errors import UserError
from delrec_jax.evaluation.records import write_records
from delrec_jax.results.sources import sources_of
from delrec_jax.workdir.workspace import Workspace

EXPERIMENT = Experiment()
WIDER = replace(
    EXPERIMENT, tune=replace(EXPERIMENT.tune, batch_size=EXPERIMENT.tune.batch_size + 1)
)
OTHER_TEACHER = replace(EXPERIMENT, teacher=replace(EXPERIMENT.teacher, name="caser"))


def finish(ws, *stages):
    for stage in stages:
        folder = ws.begin(stage)
        for name in ws.spec(stage).results:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("{}")
        if stage in ("evaluate", "baseline"):
            ranks = {"evaluate": SOME, "baseline": HALF}[stage]
            write_records(folder / "records.parquet", pl.concat([table("teacher", ranks)]))
        ws.finish(stage)


@pytest.fixture
def ranked(tmp_path):
    """A workdir with both kinds of records."""
    stages = ("prepare", "pretrain", "teach", "fit", "baseline", "distill", "tune", "evaluate")
    finish(Workspace(tmp_path, EXPERIMENT), *stages)
    return tmp_path


def names(folder):
    return [source.path.parent.name for source in sources_of("", Path(folder))]


def test_records_of_the_settings_are_read(ranked):
    assert names(ranked) == ["records", "baseline"]


def test_an_evaluation_of_other_settings_is_refused(ranked):
    Workspace(ranked, WIDER, update=True)
    with pytest.raises(
        UserError, match=r"records was made with other settings .* `delrec evaluate`"
    ):
        sources_of("", ranked)
    Workspace(ranked, EXPERIMENT, update=True)
    assert names(ranked) == ["records", "baseline"]


def test_older_baselines_are_left_out_and_that_is_said(ranked, capsys):
    ws = Workspace(ranked, OTHER_TEACHER, update=True)
    finish(ws, "pretrain", "teach", "distill", "tune", "evaluate")
    assert names(ranked) == ["records"]
    told = capsys.readouterr().err
    assert "baseline was made with other settings" in told and "is left out" in told


def test_baselines_alone_of_other_settings_are_refused(tmp_path):
    finish(Workspace(tmp_path, EXPERIMENT), "prepare", "teach", "fit", "baseline")
    assert names(tmp_path) == ["baseline"]
    Workspace(tmp_path, OTHER_TEACHER, update=True)
    with pytest.raises(UserError, match=r"baseline was made with other settings"):
        sources_of("", tmp_path)
