"""A slot after each title through the commands: the ablation `llara`, whose projector goes on training in stage 2."""

import json
import re
import shutil
from dataclasses import replace
from unittest import mock

import chex
import jax
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from same_answers import assert_same_answers
from tiny_storefront import CONFIG, FEW_BASELINES, TINY, delrec, open_workspace
from watching import Watch, same

import delrec_jax
from delrec_jax.delrec import files, systems, title_slots
from delrec_jax.errors import Preempted
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training import task
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.training.preemption import StopRequest
from delrec_jax.workdir.language_scorer import LanguageScorer
from delrec_jax.workdir.workspace import Workspace

LLARA = f"{CONFIG}:llara"
FLAGS = (
    *TINY,
    *FEW_BASELINES,
    "--config.tune.controls=('none', 'random')",
    "--config.tune.prompt_rate=3.0",
)
NO_STEPS = ("--config.distill.loop.steps=0", "--config.tune.loop.steps=0")


def copy(run, workdir, *stages):
    for name in stages:
        shutil.copytree(run / name, workdir / name)


@pytest.fixture(scope="module")
def watched_run(tiny_run, tmp_path_factory):
    workdir, watch = tmp_path_factory.mktemp("llara") / "run", Watch()
    copy(tiny_run, workdir, "data", "lm", "teacher")
    with mock.patch.object(task, "fit", watch.fit):
        delrec("run", LLARA, f"--workdir={workdir}", *FLAGS)
    return workdir, watch


@pytest.fixture(scope="module")
def llara_run(watched_run):
    return watched_run[0]


@pytest.fixture(scope="module")
def opened(llara_run):
    ws = open_workspace(llara_run)
    return ws, Inputs(ws)


def test_its_systems_are_ranked(llara_run):
    found = set(pl.read_parquet(llara_run / "records" / "records.parquet")["system"])
    assert found >= {
        "lm_distilled_prompt",
        "delrec",
        "lm_tuned_random_prompt",
        "lm_tuned_no_prompt",
    }


def test_the_projector_trains_in_both_stages_and_the_teachers_vectors_do_not(watched_run):
    workdir, watch = watched_run
    for name in ("prompt/distilled", "prompt/true", "adapter/distilled", "adapter/random"):
        first, last = watch.params[name][0]["prompt"], watch.params[name][-1]["prompt"]
        assert not any(same(first[layer], last[layer]) for layer in ("first", "second")), name
        before, after = watch.frozen[name]
        assert same(before, after) and before["slot_vectors"].any()
        chex.assert_tree_all_finite(watch.metrics[name])
    # Stage 2 begins with what stage 1 left; without a prompt nothing of it is read, and nothing moves.
    stored, _ = load_tree(workdir / "prompt" / "random" / "result.safetensors")
    assert same(watch.params["adapter/random"][0]["prompt"], stored["prompt"])
    first, last = watch.params["adapter/none"][0], watch.params["adapter/none"][-1]
    assert same(first["prompt"], last["prompt"]) and not same(first["adapters"], last["adapters"])


def test_evaluation_reads_the_projector_that_stage_two_left(opened):
    ws, inputs = opened
    vectors = load_file(files.slot_vectors_path(ws))["slot_vectors"]
    stored = files.load_tuned(ws, "random")
    moved = jax.tree.map(lambda leaf: leaf + 0.1, stored["prompt"])
    with mock.patch.object(files, "load_tuned", lambda *_: {**stored, "prompt": moved}):
        read = np.asarray(systems.tuned(ws, inputs.language, "random", None).prompt)
    assert read.shape == (inputs.data.num_items, 16)
    np.testing.assert_allclose(read, title_slots.project(moved, vectors), atol=1e-4)


def test_scores_depend_on_the_slots_that_a_text_has(opened):
    ws, inputs = opened
    scorer = LanguageScorer(inputs.language)
    system = systems.prompted(ws, inputs.language, "distilled", None)
    texts = scorer.texts(system, [np.array([1, 5]), np.array([9, 2])])
    first = inputs.language.slots[0]
    assert [sorted(row[row >= first] - first) for row in texts.ids] == [[1, 5], [2, 9]]
    scores = np.asarray(scorer.catalogue(system, texts))
    other = replace(system, prompt=system.prompt.at[5].add(1.0))
    changed = np.abs(np.asarray(scorer.catalogue(other, texts)) - scores).max(1)
    assert changed[0] > 1e-4 and changed[1] == 0
    bare = scorer.texts(systems.tuned(ws, inputs.language, "none", None), [np.array([1, 5])])
    assert (bare.ids < first).all()


def test_commands_read_it(llara_run, opened, tmp_path, capsys):
    ws, inputs = opened
    where = (LLARA, f"--workdir={llara_run}", *FLAGS)
    titles = inputs.data.corpus.catalogue.titles
    delrec("recommend", *where, f"--history={titles[1]}; {titles[5]}", "-k", "3")
    delrec("prompts", *where, "--n=1")
    out = capsys.readouterr().out
    assert "DELRec" in out
    for text in re.findall(r"^The user has purchased these .*", out, flags=re.MULTILINE):
        assert len(re.findall(r"\[P\d+\]", text)) >= 2
    delrec("export", *where, "--format=adapter", f"--output={tmp_path / 'out'}")
    exported = load_file(tmp_path / "out" / "adapter.safetensors")["prompt"]
    tuned = systems.tuned(ws, inputs.language, "distilled", None).prompt
    np.testing.assert_array_equal(exported, tuned)


def test_it_is_probed_where_a_question_applies(llara_run, tmp_path, capsys):
    """Its agreement and its use of order; the slots of a text are not those of a prompt."""
    delrec("probe", f"--workdir={llara_run}", "--users=8", f"--output={tmp_path / 'p'}")
    found = json.loads((tmp_path / "p" / "probes.json").read_text())
    assert found["slots"] is None and found["words"] is None
    assert {row["system"] for row in found["order"]} >= {"teacher", "lm_distilled_prompt", "delrec"}
    assert found["agreement"][-1]["prompt"] == "true"
    told = capsys.readouterr().err
    assert "belong to items" in told and "depend on the item" in told
    with pytest.raises(SystemExit):
        delrec("probe", f"--workdir={llara_run}", f"--prompt_from={llara_run}")
    assert "made from this run's own items" in capsys.readouterr().err


def test_an_interrupted_stage_two_ends_bit_identical(llara_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(llara_run, workdir, ignore=shutil.ignore_patterns("adapter", "records"))
    asked = iter([False, False, True])
    with (
        mock.patch.object(StopRequest, "asked", lambda self: next(asked)),
        pytest.raises((Preempted, SystemExit)),
    ):
        delrec("tune", LLARA, f"--workdir={workdir}", *FLAGS)
    assert not (workdir / "adapter" / "distilled" / "result.safetensors").exists()
    delrec("tune", LLARA, f"--workdir={workdir}", *FLAGS)
    for name in ("distilled", "random"):
        whole, parts = (root / "adapter" / name for root in (llara_run, workdir))
        for file in ("result.safetensors", "result.json"):
            assert (whole / file).read_bytes() == (parts / file).read_bytes()
        last = max((whole / "checkpoints").iterdir(), key=lambda path: path.name).name
        assert (parts / "checkpoints" / last).is_dir()


def test_random_vectors_take_the_place_of_the_teachers(opened, tmp_path):
    ws, inputs = opened
    distill = replace(ws.experiment.distill, slot_vectors="random")
    other = Workspace(tmp_path / "w", replace(ws.experiment, distill=distill))
    for stage in ("data", "teacher"):
        shutil.copytree(ws.root / stage, other.root / stage)
    title_slots.make_vectors(other, inputs.data)
    theirs, ours = (load_file(files.slot_vectors_path(one))["slot_vectors"] for one in (ws, other))
    cold = inputs.data.split.cold_items(inputs.data.num_items)
    assert ours.shape == theirs.shape and 0 < cold.sum() < len(cold)
    assert not theirs[cold].any() and not ours[cold].any()
    assert abs(np.corrcoef(theirs[~cold].ravel(), ours[~cold].ravel())[0, 1]) < 0.3


def test_stages_of_no_steps_leave_what_they_start_with(llara_run, tmp_path):
    workdir = tmp_path / "run"
    copy(llara_run, workdir, "data", "lm", "teacher")
    for stage in ("distill", "tune"):
        delrec(stage, LLARA, f"--workdir={workdir}", *FLAGS, *NO_STEPS)
    ws = open_workspace(workdir)
    start, tuned = files.load_distilled(ws, "distilled"), files.load_tuned(ws, "distilled")
    assert files.selected_step(files.adapter_path(ws, "distilled")) == 0
    for name in ("first", "second"):
        for part, value in start["prompt"][name].items():
            np.testing.assert_array_equal(tuned["prompt"][name][part], value)
    shuffled = files.load_distilled(ws, "shuffled")["prompt"]["first"]["weight"]
    np.testing.assert_array_equal(shuffled, start["prompt"]["first"]["weight"])


def test_a_shared_folder_answers_as_the_run(llara_run, tmp_path):
    delrec("export", f"--workdir={llara_run}", "--format=hub", f"--output={tmp_path / 'out'}")
    assert_same_answers(delrec_jax.load(llara_run), delrec_jax.load(tmp_path / "out"), k=3)
