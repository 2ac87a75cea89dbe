"""What trains in a stage and what must not, watched while the stages train; and the `index` verbalizer end to end."""

import hashlib
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from unittest import mock

import chex
import jax
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from tiny_storefront import CONFIG, FEW_BASELINES, TINY, delrec, open_workspace
from watching import Watch, same, stored

from delrec_jax.delrec import distill
from delrec_jax.serving.recommender import Recommender
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training import task
from delrec_jax.workdir.language_scorer import LanguageScorer
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.workspace import Workspace

# The ablation `llamarec`, but with a stage 1, and a control that has a prompt: it trains what is watched here.
LLAMAREC = f"{CONFIG}:llamarec"
# Beside `index`: other texts in pre-training and another weighting than in TINY, the other teacher, shorter loops.
INDEX = (
    *TINY,
    "--config.tune.num_candidates=8",
    *FEW_BASELINES,
    "--config.tune.controls=('none','random')",
    "--config.teacher.name=popularity",
    "--config.distill.weighting=uncertainty",
    "--config.prompts.max_tokens=192",
    "--config.pretrain.text.full=0.0",
    "--config.pretrain.text.short=0.1",
    "--config.pretrain.text.short_first=1",
    "--config.pretrain.text.attributes=0.1",
    "--config.pretrain.loop.steps=3",
    "--config.distill.loop.steps=3",
    "--config.tune.loop.steps=6",
    "--config.tune.loop.evaluate_every=6",
)


@pytest.fixture(scope="module")
def index_run(tmp_path_factory):
    """A finished run with the `index` verbalizer; digests of what was stored after each stage; what trained."""
    workdir, watch = tmp_path_factory.mktemp("index") / "run", Watch()
    digests = []
    with mock.patch.object(task, "fit", watch.fit):
        stages = ("prepare", "pretrain", "teach", "fit", "distill", "tune", "evaluate", "report")
        for stage in stages:
            delrec(stage, LLAMAREC, f"--workdir={workdir}", *INDEX)
            files = sorted(workdir.glob("*/*/result.safetensors"))
            digests.append({f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files})
    return workdir, digests, watch


def check_stage_one(watch, name, trained):
    before, after = watch.frozen[name]
    assert same(before, after), "the language model has changed"
    first, last = watch.params[name][0], watch.params[name][-1]
    assert set(first) == set(last) == trained
    for part in trained:
        moved = first[part] != last[part]
        # A task without texts has no loss, and so no variance that could move.
        expected = [False, True] if (part, name) == ("log_variance", "prompt/true") else True
        assert (moved == expected).all(), part
    chex.assert_tree_all_finite(watch.metrics[name])


@pytest.mark.parametrize("name", ["distilled", "shuffled", "true"])
def test_stage_one_trains_the_prompt_and_leaves_the_language_model(index_run, name):
    workdir, _, watch = index_run
    run = f"prompt/{name}"
    check_stage_one(watch, run, {"prompt", "log_variance"})
    assert same(
        watch.frozen[run][1]["params"], stored(workdir / "lm" / "model" / "result.safetensors")
    )
    for row in watch.metrics[run]:
        if name == "true":  # there are no TA texts, so there is nothing to weigh
            assert row["weight/ta"] == row["loss/ta"] == 0 < row["loss/rps"]
            assert row["loss"] == pytest.approx(row["loss/rps"], rel=1e-6)
        else:
            assert row["loss/ta"] > 0 and row["loss/rps"] > 0
    weights = [row["weight/ta"] for row in watch.metrics[run]]
    assert len(set(weights)) == (1 if name == "true" else 3)


def test_all_prompts_start_alike_and_the_random_one_does_not(index_run):
    workdir, _, watch = index_run
    first = [
        watch.params[f"prompt/{name}"][0]["prompt"] for name in ("distilled", "shuffled", "true")
    ]
    assert (first[0] == first[1]).all() and (first[0] == first[2]).all()
    random = load_file(workdir / "prompt" / "random" / "result.safetensors")["prompt"]
    assert random.shape == first[0].shape and (random != first[0]).all()


def test_weighting_by_gradient_norms_takes_steps(tiny_run, tmp_path, monkeypatch):
    workdir, watch = shutil.copytree(tiny_run, tmp_path / "copy"), Watch()
    for result in (workdir / "prompt").glob("*/result.safetensors"):
        result.unlink()
    shutil.rmtree(workdir / "prompt" / "distilled")
    experiment = open_workspace(workdir).experiment
    config = replace(
        experiment.distill,
        weighting="gradient_norm",
        loop=replace(experiment.distill.loop, steps=3),
    )
    ws = Workspace(workdir, replace(experiment, distill=config), update=True)

    class Enough(Exception):
        pass

    def only_first(run):
        watch.fit(run)
        raise Enough

    monkeypatch.setattr(task, "fit", only_first)
    inputs = Inputs(ws)
    with pytest.raises(Enough):
        distill.distill(ws, inputs.data, inputs.language)
    check_stage_one(watch, "prompt/distilled", {"prompt"})
    weights = [row["weight/ta"] for row in watch.metrics["prompt/distilled"]]
    assert len(set(weights)) == 3 and all(0 < weight < 1 for weight in weights)


def test_fixed_weights_stay(tiny_run):
    weight = open_workspace(tiny_run).experiment.distill.tasks["ta"].weight
    log = (tiny_run / "prompt" / "distilled" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in log[1:]]
    assert len(rows) == 2 and all(row["weight/ta"] == np.float32(weight) for row in rows)
    for row in rows:
        mixed = weight * row["loss/ta"] + (1 - weight) * row["loss/rps"]
        assert row["loss"] == pytest.approx(mixed, rel=1e-5)


@pytest.mark.parametrize("prompt", ["distilled", "random", "none"])
def test_stage_two_trains_adapters_and_leaves_model_and_prompt(index_run, prompt):
    workdir, _, watch = index_run
    before, after = watch.frozen[f"adapter/{prompt}"]
    assert set(before) == {"params", "prompt", "vectors"}
    assert after["vectors"] is None, "`index` scores by codes, not by titles"
    assert same(before, after), "the language model or the prompt has changed"
    assert same(after["params"], stored(workdir / "lm" / "model" / "result.safetensors"))
    if prompt == "none":
        assert not after["prompt"].any()
    else:
        used = load_file(workdir / "prompt" / prompt / "result.safetensors")["prompt"]
        assert after["prompt"].tobytes() == used.tobytes()
    states = watch.params[f"adapter/{prompt}"]
    leaves = jax.tree_util.tree_leaves_with_path(states[-1])
    assert {path[-1].key for path, _ in leaves} == {"A", "E", "B"}
    pairs = zip(*map(jax.tree.leaves, (states[0], states[-1])), strict=True)
    assert all((a != b).any() for a, b in pairs), "an adapter has not moved"
    chex.assert_tree_all_finite(watch.metrics[f"adapter/{prompt}"])


def test_index_ranks_candidate_lists_and_never_the_catalogue(index_run):
    workdir, _, _ = index_run
    records = pl.read_parquet(workdir / "records" / "records.parquet")
    systems = {
        protocol: set(records.filter(pl.col("protocol") == protocol)["system"])
        for protocol in ("full", "sampled-8", "rerank-8")
    }
    assert systems["full"] == {
        *("popularity", "tfidf", "lm_embeddings", "teacher", "hybrid(teacher+tfidf)", "oracle")
    }
    assert systems["sampled-8"] == systems["rerank-8"] > {"delrec", "lm_no_prompt", "lm_words"}
    listed = records.filter(pl.col("system") == "delrec", pl.col("protocol") == "sampled-8")
    assert listed["candidates"].unique().to_list() == [8] and len(listed) == 48
    assert listed["rank"].n_unique() > 2, "all candidates have one score"
    rows = json.loads((workdir / "report" / "metrics.json").read_text())
    assert not [r for r in rows if r["protocol"].startswith("full") and r["system"] == "delrec"]
    assert [r for r in rows if r["protocol"] == "rerank-8" and r["system"] == "delrec"]


def test_no_later_stage_touches_what_an_earlier_one_stored(index_run):
    _, digests, _ = index_run
    for before, after in pairwise(digests):
        assert before.items() <= after.items()
    assert len(digests[-1]) == 2 + 4 + 3, (
        "the LM and its round, four prompts, three sets of adapters"
    )


def test_attribute_questions_are_part_of_the_gate_where_texts_ask_them(index_run):
    workdir, _, _ = index_run
    gate = json.loads((workdir / "lm" / "round-1" / "gate.json").read_text())
    assert {"attribute/genre", "attribute/volume", "attributes", "next_in_series", "gate"} <= set(
        gate
    )


def test_index_prompts_name_every_candidate_by_a_code(index_run, capsys):
    workdir, _, _ = index_run
    delrec("prompts", LLAMAREC, f"--workdir={workdir}", *INDEX, "--n=1")
    text = next(
        line for line in capsys.readouterr().out.splitlines() if "The next item the" in line
    )
    shown = text.split("The candidate items are")[1]
    assert [shown.count(f" {code} ") for code in "ABCDEFGH"] == [1] * 8


def test_recommend_lists_the_teachers_best_where_texts_list_candidates(
    index_run, capsys, monkeypatch
):
    workdir, _, _ = index_run
    titles = load_data(open_workspace(workdir)).corpus.catalogue.titles
    monkeypatch.setenv("COLUMNS", "300")
    ask, asked = LanguageScorer.candidates, []
    monkeypatch.setattr(
        LanguageScorer, "candidates", lambda *given: asked.append(given[1:]) or ask(*given)
    )
    history = f"--history={titles[0]}; {titles[5]}"
    delrec("recommend", f"--workdir={workdir}", history, "-k", "8")
    ((_, texts, listed),) = asked
    codes = Inputs(open_workspace(workdir)).language.pieces.codes
    assert listed.shape == (1, 8) and set(codes[:8]) <= set(texts.ids[0].tolist())
    head, *rows = [
        [cell.strip() for cell in line.replace("│", "┃").split("┃")[2:4]]
        for line in capsys.readouterr().out.splitlines()
        if "┃" in line or "│" in line
    ]
    assert head == ["DELRec (among the teacher's best 8)", "popularity"]
    own, teachers = zip(*rows, strict=True)
    expected = [titles[item] for item in listed[0]]
    assert sorted(own) == sorted(teachers) == sorted(expected)
    assert list(teachers) != expected, "listed in the teacher's order"


def test_the_text_that_is_read_names_the_listed_candidates(index_run):
    workdir, _, _ = index_run
    recommender = Recommender(open_workspace(workdir))
    history = np.array([0, 5], np.int32)
    text, tokens = recommender.read_text(history, "delrec")
    ((best, _),) = recommender.ranked([history], k=8, system="delrec")
    assert all(f" {recommender.titles[item]}" in text for item in best)
    assert text.count("[P") == 3 and tokens > 100
    assert recommender.readers("delrec") == ("delrec",) and not recommender.readers("teacher")


def test_what_is_answered_does_not_depend_on_what_else_is_asked(index_run):
    """Neither where texts list stated candidates, of another number for each, nor where they list the teacher's."""
    recommender = Recommender(open_workspace(index_run[0]))
    histories = [np.array(items, np.int32) for items in ([0, 5], [3], [7, 1, 2], [3])]
    candidates = [np.array(items, np.int32) for items in ([4, 8], [9, 6, 2, 5], [10], [11, 4, 9])]
    for stated in (candidates, None):
        together = recommender.ranked(histories, stated, k=8, system="delrec")
        for row, (items, scores) in enumerate(together):
            alone = None if stated is None else [stated[row]]
            ((its, values),) = recommender.ranked([histories[row]], alone, k=8, system="delrec")
            assert its.tolist() == items.tolist(), row
            np.testing.assert_allclose(values, scores, rtol=1e-4, atol=1e-5)
    assert together[1][0].tolist() == together[3][0].tolist()


def test_recommend_refuses_more_than_the_listed_candidates(index_run, capsys):
    workdir, _, _ = index_run
    with pytest.raises(SystemExit):
        delrec(
            "recommend",
            f"--workdir={workdir}",
            "--history=Tangled Stone Mystery Book One",
            "-k",
            "9",
        )
    err = capsys.readouterr().err.strip()
    assert "lm.verbalizer=index" in err and "-k 8 or less" in err and "candidates.rerank" in err
    assert len(err.splitlines()) == 1
