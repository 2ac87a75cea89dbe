"""What trains in a stage and what must not: steps as the stages build them, on the tiny run's own assets."""

import hashlib
import json
import shutil
from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

from delrec_jax.objectives.task_weighting import WeightingConfig
from delrec_jax.stages import distill, tune
from delrec_jax.stages.workspace import Workspace
from delrec_jax.training.sharding import place_batch

# With `index`: other texts in pre-training than in TINY's run, the other teacher, the shortest loops.
INDEX = (
    *TINY,
    "--config.lm.verbalizer=index",
    "--config.tune.loss_over=candidates",
    "--config.tune.num_candidates=8",
    "--config.tune.few_users=0",
    "--config.teacher.name=popularity",
    "--config.prompts.max_tokens=192",
    "--config.pretrain.text.short=0.0",
    "--config.pretrain.text.full=0.0",
    "--config.pretrain.text.several=0.1",
    "--config.pretrain.text.attributes=0.1",
    "--config.pretrain.loop.steps=2",
    "--config.pretrain.optimizer.warmup_steps=0",
    "--config.distill.loop.steps=2",
    "--config.tune.loop.steps=6",
    "--config.tune.loop.evaluate_every=6",
)


class Stepped(Exception):
    """Carries a run out of its stage."""


@pytest.fixture
def copy(tiny_run, tmp_path):
    """The tiny run in a folder of its own, opened with stage 1's weighting changed on demand."""

    def open_copy(kind="fixed"):
        workdir = shutil.copytree(tiny_run, tmp_path / kind)
        experiment = open_workspace(workdir).experiment
        config = replace(experiment.distill, weighting=WeightingConfig(kind))
        return Workspace(workdir, replace(experiment, distill=config), update=True)

    return open_copy


def host(tree):
    return jax.tree.map(np.array, jax.device_get(tree))


def same(a, b):
    """Whether two trees are equal to the last bit."""
    flat = [jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (a, b)]
    assert [path for path, _ in flat[0]] == [path for path, _ in flat[1]]
    pairs = zip(*flat, strict=True)
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for (_, x), (_, y) in pairs)


def stepped(monkeypatch, module, stage, ws, name, steps=3):
    """Runs a stage up to the named run and does some steps of it: (run, before, after, losses)."""

    def fit(run):
        if run.name != name:
            return None, {"best_step": 0, "steps": 0, "ranks": {"x": 0}}
        before = host((run.frozen, run.state.params))
        state = jax.tree.map(jax.numpy.array, run.state)
        losses = []
        for _ in range(steps):
            batch = place_batch(next(run.batches), run.mesh)
            state, metrics = run.step(state, run.frozen, batch, run.key)
            losses.append(host(metrics))
        raise Stepped(run, before, host((run.frozen, state.params)), losses)

    monkeypatch.setattr(module, "fit", fit)
    with pytest.raises(Stepped) as found:
        stage(ws)
    return found.value.args


def stored(path):
    """A safetensors file as the nested tree that it holds."""
    tree = {}
    for name, array in load_file(path).items():
        node = tree
        *parents, leaf = name.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree


@pytest.mark.parametrize("kind", ["fixed", "gradient_norm", "uncertainty"])
def test_stage_one_trains_the_prompt_and_leaves_the_language_model(copy, monkeypatch, kind):
    ws = copy(kind)
    _, before, after, losses = stepped(
        monkeypatch, distill, distill.distill, ws, "prompt/distilled"
    )
    assert same(before[0], after[0]), "the language model has changed"
    assert same(after[0], stored(ws.root / "lm" / "model" / "result.safetensors"))
    trained = {"prompt", "log_variance"} if kind == "uncertainty" else {"prompt"}
    assert set(before[1]) == set(after[1]) == trained
    for name in trained:
        assert (before[1][name] != after[1][name]).all(), name
    assert all(np.isfinite(list(row.values())).all() for row in losses)
    assert all(row["loss/ta"] > 0 and row["loss/rps"] > 0 for row in losses)
    if kind == "fixed":
        weight = np.float32(ws.experiment.distill.weighting.ta_weight)
        assert all(row["weight/ta"] == weight for row in losses)
    else:
        assert len({float(row["weight/ta"]) for row in losses}) > 1


def test_the_true_item_prompt_has_no_ta_texts_and_so_no_weighting(copy, monkeypatch):
    ws = copy("uncertainty")
    _, _, after, losses = stepped(monkeypatch, distill, distill.distill, ws, "prompt/true", steps=1)
    assert set(after[1]) == {"prompt"}
    assert losses[0]["weight/ta"] == losses[0]["loss/ta"] == 0
    assert losses[0]["loss"] == losses[0]["loss/rps"] > 0


def test_stage_two_trains_adapters_and_leaves_model_and_prompt(copy, monkeypatch):
    ws = copy()
    _, before, after, losses = stepped(monkeypatch, tune, tune.tune, ws, "adapter/random")
    assert set(before[0]) == {"params", "prompt"}
    assert same(before[0], after[0]), "the language model or the prompt has changed"
    assert same(after[0]["params"], stored(ws.root / "lm" / "model" / "result.safetensors"))
    used = load_file(ws.root / "prompt" / "random" / "result.safetensors")["prompt"]
    assert after[0]["prompt"].tobytes() == used.tobytes()
    leaves = jax.tree_util.tree_leaves_with_path(after[1])
    assert {path[-1].key for path, _ in leaves} == {"A", "E", "B"}
    moved = [
        (a != b).any() for a, b in zip(*map(jax.tree.leaves, (before[1], after[1])), strict=True)
    ]
    assert all(moved), "an adapter has not moved"
    assert all(np.isfinite(list(row.values())).all() for row in losses)


@pytest.fixture(scope="module")
def index_run(tmp_path_factory):
    """A finished run with the `index` verbaliser, and digests of what was stored before each later stage."""
    workdir = tmp_path_factory.mktemp("index") / "run"
    digests = []
    for stage in ("prepare", "pretrain", "teach", "distill", "tune", "evaluate", "report"):
        delrec(stage, CONFIG, f"--workdir={workdir}", *INDEX)
        files = sorted(workdir.glob("*/*/result.safetensors"))
        digests.append({f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files})
    return workdir, digests


def test_index_ranks_candidate_lists_and_never_the_catalogue(index_run):
    workdir, _ = index_run
    records = pl.read_parquet(workdir / "records" / "records.parquet")
    systems = {
        protocol: set(records.filter(pl.col("protocol") == protocol)["system"])
        for protocol in ("full", "sampled-8", "rerank-8")
    }
    assert systems["full"] == {"popularity", "teacher", "oracle"}
    assert systems["sampled-8"] == systems["rerank-8"] > {"delrec", "lm_no_prompt", "lm_words"}
    listed = records.filter(pl.col("system") == "delrec", pl.col("protocol") == "sampled-8")
    assert listed["candidates"].unique().to_list() == [8] and len(listed) == 48
    assert listed["rank"].n_unique() > 2, "all candidates have one score"
    rows = json.loads((workdir / "report" / "metrics.json").read_text())
    assert not [r for r in rows if r["protocol"].startswith("full") and r["system"] == "delrec"]
    assert [r for r in rows if r["protocol"] == "rerank-8" and r["system"] == "delrec"]


def test_no_later_stage_touches_what_an_earlier_one_stored(index_run):
    _, digests = index_run
    for before, after in pairwise(digests):
        assert before.items() <= after.items()
    assert len(digests[-1]) == 1 + 4 + 2, "the LM, four prompts, two sets of adapters"


def test_attribute_questions_are_part_of_the_gate_where_texts_ask_them(index_run):
    workdir, _ = index_run
    gate = json.loads((workdir / "lm" / "gate.json").read_text())
    assert {"attribute/genre", "attribute/volume", "attributes", "next_in_series", "gate"} <= set(
        gate
    )


def test_index_prompts_name_every_candidate_by_a_code(index_run, capsys):
    workdir, _ = index_run
    delrec("prompts", CONFIG, f"--workdir={workdir}", *INDEX, "--n=1")
    text = next(
        line for line in capsys.readouterr().out.splitlines() if "The next item the" in line
    )
    shown = text.split("The candidate items are")[1]
    assert [shown.count(f" {code} ") for code in "ABCDEFGH"] == [1] * 8


def test_recommend_says_that_index_has_no_catalogue_scores(index_run, capsys):
    workdir, _ = index_run
    with pytest.raises(SystemExit):
        delrec("recommend", f"--workdir={workdir}", "--history=Tangled Stone Mystery Book One")
    err = capsys.readouterr().err.strip()
    assert "index" in err and "mean" in err and len(err.splitlines()) == 1
