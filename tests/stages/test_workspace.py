"""What a workdir remembers of its stages, without running any of them."""

from dataclasses import replace

import pytest

from delrec_jax.config import Experiment
from delrec_jax.errors import UserError
from delrec_jax.workdir.workspace import Workspace


def write_results(ws, stage, text="{}"):
    """Leaves a stage as a run does that is killed after writing every result, but before marking the stage as finished."""
    folder = ws.begin(stage)
    for name in ws.spec(stage).results:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_an_interrupted_stage_is_not_finished_although_all_its_files_are_there(tmp_path):
    ws = Workspace(tmp_path, Experiment())
    folder = write_results(ws, "prepare")
    assert not ws.finished("prepare") and ws.content("prepare") == ""
    with pytest.raises(UserError, match=r"^teach needs the results of prepare, which are not in"):
        ws.begin("teach")
    # The next run finds what the killed one left, except for the file that was only half written.
    (folder / ".split.npz.partial-7").write_text("half")
    (folder / "checkpoint").write_text("step 5")
    ws.begin("prepare")
    assert not ws.finished("prepare")
    left = {path.name for path in folder.iterdir()}
    assert {"checkpoint", "split.npz"} <= left and ".split.npz.partial-7" not in left
    ws.finish("prepare")
    assert ws.finished("prepare") and ws.content("prepare")
    assert ws.begin("teach").is_dir()


def test_a_finished_stage_without_one_of_its_files_is_not_finished(tmp_path):
    ws = Workspace(tmp_path, Experiment())
    folder = write_results(ws, "prepare")
    ws.finish("prepare")
    (folder / "split.npz").unlink()
    assert not ws.finished("prepare")


def test_only_finished_results_of_other_settings_are_outdated(tmp_path):
    experiment = Experiment()
    candidates = replace(experiment.candidates, num=experiment.candidates.num + 1)
    ws = Workspace(tmp_path, experiment)
    write_results(ws, "prepare")
    other = Workspace(tmp_path, replace(experiment, candidates=candidates), update=True)
    assert not other.finished("prepare") and not other.outdated("prepare")
    ws.finish("prepare")
    assert not other.finished("prepare") and other.outdated("prepare")
    folder = other.begin("prepare")  # keeps nothing of the other settings
    assert [path.name for path in folder.iterdir()] == ["stage.json"]
    assert not other.outdated("prepare")


def test_other_results_of_an_earlier_stage_make_a_later_one_outdated(tmp_path):
    ws = Workspace(tmp_path, Experiment())
    for stage in ("prepare", "teach"):
        write_results(ws, stage)
        ws.finish(stage)
    assert ws.finished("teach") and not ws.outdated("teach")
    write_results(ws, "prepare", text="[]")
    ws.finish("prepare")
    assert ws.finished("prepare") and not ws.finished("teach") and ws.outdated("teach")


def test_a_setting_that_only_judges_runs_a_stage_again_and_keeps_its_files(tmp_path):
    experiment = Experiment()
    ws = Workspace(tmp_path, experiment)
    for stage in ("prepare", "pretrain", "teach", "distill"):
        write_results(ws, stage)
        ws.finish(stage)
    gate = replace(experiment.pretrain.gate, next_item=0.5)
    pretrain = replace(experiment.pretrain, gate=gate, rounds=2)
    other = Workspace(tmp_path, replace(experiment, pretrain=pretrain), update=True)
    assert not other.finished("pretrain") and other.outdated("pretrain")
    assert (other.begin("pretrain") / "base.json").exists()
    other.finish("pretrain")
    assert other.finished("pretrain") and other.finished("distill"), "of the same model"
