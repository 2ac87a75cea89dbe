"""What a workdir remembers of its stages, without running any of them."""

import json
import shutil
from dataclasses import replace
from unittest import mock

import pytest

from delrec_jax.config import Experiment, GateConfig
from delrec_jax.errors import UserError
from delrec_jax.serving.run_parts import RunParts
from delrec_jax.stages.show_prompts import show_prompts
from delrec_jax.training.spikes import SpikeConfig
from delrec_jax.workdir import kept_files, workspace
from delrec_jax.workdir.workspace import Workspace

SMALLER = replace(Experiment().data.storefront, users=50)


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


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: Workspace(folder, Experiment()).begin("teach"),
        lambda folder: Workspace(folder, Experiment()).begin("fit"),
        lambda folder: Workspace(folder, Experiment()).check_intact("teach"),
        lambda folder: Workspace(folder, Experiment(), read_only=True),
    ],
    ids=["teach", "fit", "what is needed", "reading"],
)
def test_what_a_finished_stage_left_is_checked_before_it_is_used(tmp_path, use):
    ws = Workspace(tmp_path, Experiment())
    for stage in ("prepare", "teach"):
        write_results(ws, stage)
        ws.finish(stage)
    use(tmp_path)
    file = ws.folder("prepare") / "split.npz"
    file.write_text(file.read_text()[::-1])
    with pytest.raises(UserError, match=r"split\.npz: damaged or changed"):
        use(tmp_path)


@pytest.mark.parametrize(
    ("stage", "changes", "same"),
    [
        ("pretrain", {"pretrain": {"gate": GateConfig(next_item=0.5)}}, False),
        ("prepare", {"data": {"corpus": "csv", "path": "elsewhere"}}, False),
        ("prepare", {"data": {"corpus": "csv", "path": "here", "download_dir": "there"}}, False),
        ("prepare", {"data": {"corpus": "csv", "path": "here", "storefront": SMALLER}}, True),
        ("prepare", {"data": {"storefront": SMALLER}}, False),
    ],
)
def test_what_runs_of_a_study_share_has_the_same_settings(tmp_path, stage, changes, same):
    first = Experiment()
    if changes.get("data", {}).get("corpus"):
        first = replace(first, data=replace(first.data, corpus="csv", path="here"))
    sections = {name: replace(getattr(first, name), **keys) for name, keys in changes.items()}
    keys = [
        Workspace(tmp_path / str(number), experiment).plan_key(stage)
        for number, experiment in enumerate((first, replace(first, **sections)))
    ]
    assert (keys[0] == keys[1]) == same


def test_what_was_made_of_a_prompt_is_outdated_once_that_is_made_again(tmp_path):
    """A damaged file of `prompt/` is cured by making it anew, perhaps with other bits: nothing may go on from the old ones."""
    ws = Workspace(tmp_path, Experiment())
    for stage in ("prepare", "pretrain", "teach"):
        write_results(ws, stage)
        ws.finish(stage)

    def distilled(text):
        (ws.begin("distill") / "result.json").write_text(text)
        ws.finish("distill")

    distilled("1")
    before = ws.identity("tune")
    ws.begin("tune")
    ws.finish("tune")
    assert ws.finished("tune")
    for text, kept in (("1", True), ("2", False)):
        shutil.rmtree(ws.folder("distill"))
        distilled(text)
        assert ws.finished("tune") == kept and (ws.identity("tune") == before) == kept


def test_stages_of_earlier_versions_without_named_results_are_current(tmp_path):
    """Their markers have the hash of nothing, whatever they made."""
    ws = Workspace(tmp_path, Experiment())
    for stage in ("prepare", "pretrain", "teach", "distill"):
        folder = write_results(ws, stage)
        (folder / "more.json").write_text("{}")
        ws.finish(stage)
    path = ws.folder("distill") / "stage.json"
    marker = json.loads(path.read_text())
    seal = marker.pop("seal")
    old = {**marker, "content": workspace._NOTHING}
    path.write_text(json.dumps(kept_files.sealed(old)))
    assert seal != kept_files.sealed(old)["seal"] and ws.finished("distill")
    assert not any("results of distill" in key for key in ws.identity("tune"))


def test_prompts_are_shown_once_what_they_are_made_from_is_there(tmp_path):
    ws = Workspace(tmp_path, Experiment())
    for stage, missing in (("prepare", "pretrain"), ("pretrain", "teach")):
        write_results(ws, stage)
        ws.finish(stage)
        with pytest.raises(UserError, match=rf"^prompts needs the results of {missing}, which are"):
            show_prompts(ws, mock.Mock(), 1)


def test_a_folder_that_was_moved_elsewhere_and_linked_is_only_unlinked(tmp_path):
    ws = Workspace(tmp_path / "run", Experiment())
    folder = write_results(ws, "prepare")
    ws.finish("prepare")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "mine").touch()
    (folder / "large").symlink_to(tmp_path / "scratch", target_is_directory=True)
    other = Workspace(
        tmp_path / "run",
        replace(Experiment(), candidates=replace(Experiment().candidates, num=7)),
        update=True,
    )
    assert not (other.begin("prepare") / "large").exists()
    assert (tmp_path / "scratch" / "mine").exists()


def test_files_of_the_users_are_never_removed(tmp_path):
    """A project has a folder called data, and a run in it would clear its own."""
    own = tmp_path / "data" / "interactions.csv"
    own.parent.mkdir()
    own.write_text("user,item,time")
    with pytest.raises(UserError, match=r"data/ has files that no run made, such as interactions"):
        Workspace(tmp_path, Experiment())
    assert own.exists() and not (tmp_path / "config.json").exists()
    Workspace(tmp_path, Experiment(), read_only=True)


def test_a_stage_that_is_killed_while_it_removes_earlier_files_goes_on(tmp_path, monkeypatch):
    ws = Workspace(tmp_path, Experiment())
    folder = write_results(ws, "prepare")
    ws.finish("prepare")
    candidates = replace(ws.experiment.candidates, num=ws.experiment.candidates.num + 1)
    other = replace(ws.experiment, candidates=candidates)

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(workspace.shutil, "rmtree", killed)
        patch.setattr(workspace.Path, "unlink", killed)
        Workspace(tmp_path, other, update=True).begin("prepare")
    assert (folder / "split.npz").exists()
    again = Workspace(tmp_path, other)
    assert not again.finished("prepare")
    assert [path.name for path in again.begin("prepare").iterdir()] == ["stage.json"]
    assert not Workspace(tmp_path, ws.experiment, update=True).finished("prepare")


def test_a_config_that_is_not_a_runs_is_never_replaced(tmp_path):
    mine = tmp_path / "config.json"
    mine.write_text('{"my": "json"}')
    for update in (False, True):
        with pytest.raises(UserError, match="has the setting 'my', which this version"):
            Workspace(tmp_path, Experiment(), update=update)
    assert mine.read_text() == '{"my": "json"}'


def test_a_config_whose_first_stage_failed_can_be_corrected(tmp_path):
    experiment = Experiment()
    other = replace(experiment, data=replace(experiment.data, seed=1))
    Workspace(tmp_path, experiment).begin("prepare")
    ws = Workspace(tmp_path, other)
    write_results(ws, "prepare")
    ws.finish("prepare")
    with pytest.raises(UserError, match=r"another config: data\.seed"):
        Workspace(tmp_path, experiment)


def test_a_damaged_marker_is_deleted_with_its_folder(tmp_path):
    ws = Workspace(tmp_path, Experiment())
    (write_results(ws, "prepare") / "stage.json").write_text("{")
    with pytest.raises(UserError, match=r"delete the folder /.*/data, and the stage is run again"):
        ws.finished("prepare")


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


def finished_as(workdir, stage, number, **marker):
    """A workdir whose stage was finished by a version with that format; `marker`: what else its marker says."""
    with mock.patch.object(workspace, "_FORMAT", number):
        ws = Workspace(workdir, Experiment())
        write_results(ws, stage)
        ws.finish(stage)
    path = ws.folder(stage) / "stage.json"
    content = {**workspace.read_json(path), **marker}
    if None in marker.values():
        del content["seal"]  # markers that lack something are from before there were seals
    workspace.write_json(path, {key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize("told", [True, False], ids=["in the marker", "by fingerprint alone"])
def test_results_of_an_earlier_format_are_told_apart(tmp_path, told):
    finished_as(tmp_path, "prepare", 4, **({} if told else {"format": None}))
    ws = Workspace(tmp_path, Experiment())
    assert not ws.finished("prepare")
    said = "its results are of format 4, and this version of delrec_jax has 5"
    assert ws.earlier_format("prepare") == said
    other = Workspace(tmp_path, replace(Experiment(), seed=1), update=True)
    assert other.earlier_format("prepare") == said, "the seed is none of its settings"


def test_a_workdir_of_an_earlier_format_is_refused_by_what_only_reads(tmp_path):
    for stage in ("prepare", "teach"):
        finished_as(tmp_path, stage, 3)
    with pytest.raises(UserError) as error:
        RunParts(Workspace(tmp_path, Experiment(), read_only=True))
    assert f"{tmp_path}: its results are of format 3, and this version" in str(error.value)
    assert "open it with the version that made it, or run it again" in str(error.value)


def test_results_of_a_later_format_are_left_alone(tmp_path):
    finished_as(tmp_path, "prepare", 6)
    before = (tmp_path / "data" / "stage.json").read_bytes()
    ws = Workspace(tmp_path, Experiment())
    for use in (ws.finished, ws.begin, ws.outdated):
        with pytest.raises(UserError, match=r"results of format 6, and this version .* upgrade"):
            use("prepare")
    assert (tmp_path / "data" / "stage.json").read_bytes() == before
    assert (tmp_path / "data" / "split.npz").exists()


def test_results_without_a_format_are_those_of_this_one(tmp_path):
    """Format 5 has been in use since before markers said so."""
    finished_as(tmp_path, "prepare", 5, format=None)
    ws = Workspace(tmp_path, Experiment())
    assert ws.finished("prepare") and not ws.earlier_format("prepare")
    changed = replace(Experiment().candidates, num=7)
    other = Workspace(tmp_path, replace(Experiment(), candidates=changed), update=True)
    assert other.outdated("prepare") and not other.earlier_format("prepare")


def watching_for_spikes(**spikes):
    experiment = Experiment()
    loop = replace(experiment.teacher.loop, **spikes)
    return replace(experiment, teacher=replace(experiment.teacher, loop=loop))


def test_what_is_off_or_only_ends_a_hang_is_no_part_of_a_workdir(tmp_path):
    """Workdirs from before there was a watchdog stay valid."""
    before = Workspace(tmp_path, Experiment())
    assert "spike" not in (tmp_path / "config.json").read_text()
    quiet = replace(
        watching_for_spikes(spike=SpikeConfig(window=7, least=3)),
        hang_after=before.watch.hang_after + 1,
    )
    now = Workspace(tmp_path, quiet)
    assert now.fingerprint("teach") == before.fingerprint("teach")
    assert now.identity("teach") == before.identity("teach")


@pytest.mark.parametrize("verbalizer", ["mean", "index"])
def test_a_tokenizer_with_codes_depends_on_the_longest_list(tmp_path, verbalizer):
    experiment = Experiment()
    experiment = replace(
        experiment,
        lm=replace(experiment.lm, verbalizer=verbalizer),
        tune=replace(experiment.tune, loss_over="candidates"),
    )
    longer = replace(experiment, tune=replace(experiment.tune, num_candidates=30))
    first = Workspace(tmp_path / "first", experiment)
    second = Workspace(tmp_path / "second", longer)
    same = first.plan_key("pretrain") == second.plan_key("pretrain")
    assert same == (verbalizer == "mean")
    assert (first.identity("pretrain") == second.identity("pretrain")) == same


def test_a_workdir_from_before_a_setting_came_is_still_that_of_its_run(tmp_path):
    """As long as the setting says to do what was done then."""
    before = Experiment()
    later = replace(before, lm=replace(before.lm, weights="a/b", prefix="query: "))
    before = replace(later, lm=replace(later.lm, prefix=""))
    ws = Workspace(tmp_path, before)
    write_results(ws, "prepare")
    ws.finish("prepare")
    stored = json.loads((tmp_path / "config.json").read_text())
    assert "prefix" not in stored["lm"] and "pooling" not in stored["lm"]["bert"]
    with pytest.raises(UserError, match=r"another config: lm\.prefix"):
        Workspace(tmp_path, later)
    other = Workspace(tmp_path, later, update=True)
    assert other.fingerprint("pretrain") != ws.fingerprint("pretrain")
    assert json.loads((tmp_path / "config.json").read_text())["lm"]["prefix"] == "query: "
    with pytest.raises(UserError, match=r"another config: lm\.prefix"):
        Workspace(tmp_path, before)


def test_what_is_done_about_spikes_is_part_of_a_workdir(tmp_path):
    off, on = Experiment(), watching_for_spikes(on_spike="rollback")
    for folder, first, second in (("on", off, on), ("off", on, off)):
        ws = Workspace(tmp_path / folder, first)
        write_results(ws, "prepare")
        ws.finish("prepare")
        with pytest.raises(UserError, match=r"another config: teacher\.loop\.on_spike"):
            Workspace(tmp_path / folder, second)
        other = Workspace(tmp_path / folder, second, update=True)
        assert other.fingerprint("teach") != ws.fingerprint("teach")
        assert other.fingerprint("prepare") == ws.fingerprint("prepare")
