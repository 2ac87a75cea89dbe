"""A hybrid as the teacher: trained, weighted, distilled, tuned beside, ranked and asked for recommendations."""

import json
from dataclasses import replace

import jax
import numpy as np
import polars as pl
import pytest
from seam_runs import HERE, QUICK, write_config
from tiny_storefront import delrec, open_workspace

from delrec_jax.config import TeacherConfig
from delrec_jax.delrec.prompt_examples import source_rows
from delrec_jax.delrec.rows import user_parts
from delrec_jax.errors import UserError
from delrec_jax.padding import left_padded
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.teachers.network import NetworkTeacher
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.closed_forms import Choice, fitted, training_part
from delrec_jax.workdir.prepared import load_data

NAME, READ = "ease+markov+sasrec", 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with that teacher up to stage 2, and the flag of its config."""
    folder = tmp_path_factory.mktemp("hybrid")
    config = write_config(
        folder / "config.py",
        lm__family=f"{HERE / 'toy_family.py'}:BAG",
        tune__adalora__targets=("mix",),
        tune__beside="teacher",
        teacher__name=NAME,
        teacher__sasrec__max_length=READ,
    )
    for command in ("baseline", "pretrain", "distill", "tune"):
        delrec(command, config, f"--workdir={folder / 'run'}", *QUICK)
    return folder / "run", config


@pytest.fixture
def workspace(run, monkeypatch):
    """The workdir as if validation had chosen weights that leave out Markov; its corpus; and what `teach` stored."""
    ws, facts = (
        open_workspace(run[0]),
        json.loads((run[0] / "teacher" / "teacher.json").read_text()),
    )
    weights = {"ease": 0.5, "markov": 0.0, "sasrec": 2.0}
    monkeypatch.setattr(recommenders, "read_json", lambda path: facts | {"weights": weights})
    return ws, load_data(ws), facts


def brute_scores(ws, data, facts, history):
    """0.5 x EASE + 2 x SASRec (of its latest `READ` items), each standardized over the items not in the history."""
    params, _ = load_tree(ws.folder("teach") / "model" / "result.safetensors")
    network = NETWORKS["sasrec"](ws.experiment.teacher.sasrec, data.num_items)
    ease = fitted("ease", training_part(data), Choice(**facts["parts"]["ease"]["choice"]))
    total = np.zeros(data.num_items)
    unseen = np.setdiff1d(np.arange(data.num_items), history)
    for weight, part, read in [
        (0.5, ease, history),
        (2.0, NetworkTeacher(params, network), history[-READ:]),
    ]:
        scores = np.asarray(part.scores(np.array([read])))[0].astype(np.float64)
        total += weight * (scores - scores[unseen].mean()) / scores[unseen].std()
    return total


def test_its_scores_are_the_weighted_sum_by_brute_force(workspace):
    ws, data, facts = workspace
    system = recommenders.taught_system(ws, data)
    rows = np.array([0, 5, 11])
    found = np.asarray(system.scores("test", rows))
    for scores, row in zip(found, rows, strict=True):
        history = data.split.histories("test")[row]
        assert len(history) > READ
        np.testing.assert_allclose(scores, brute_scores(ws, data, facts, history), atol=2e-3)


def test_what_is_distilled_are_its_best_items(run):
    ws = open_workspace(run[0])
    data = load_data(ws)
    with np.load(run[0] / "prompt" / "lists_valid.npz") as lists:
        items, scores = lists["items"], lists["scores"]
    users = user_parts(data.split.training_users, ws.experiment.distill, ws.experiment.seed)
    rows = source_rows(ws.experiment, data.split, users["valid"], "teacher")
    histories = [
        data.split.train.history(int(user))[:end]
        for user, end in zip(rows.users, rows.ends, strict=True)
    ]
    padded = left_padded(histories, 512)
    given = np.array(recommenders.load_teacher(ws, data).scores(padded))
    given[:, data.split.cold_items(data.num_items)] = -np.inf
    for row, history in enumerate(histories):
        given[row, history] = -np.inf
    assert (np.argsort(-given, axis=1, kind="stable")[:, :4] == items[:, :4]).all()
    np.testing.assert_allclose(np.take_along_axis(given, items, 1), scores, rtol=1e-4, atol=1e-4)


def test_it_is_ranked_and_said_to_be_what_it_is(run, capsys):
    table = pl.read_parquet(run[0] / "baseline" / "records.parquet")
    of_it = table.filter(system="teacher")
    assert set(of_it["teacher"]) == {NAME} and "rerank-8" in set(of_it["protocol"])
    assert (of_it.filter(protocol="full")["rank"] >= 1).all()
    tables = (run[0] / "baseline" / "tables.md").read_text()
    assert f"Teacher ({NAME})" in tables
    delrec("prompts", run[1], f"--workdir={run[0]}", *QUICK, "--n=1")
    words = [word for word in capsys.readouterr().out.split() if word != "_"]
    assert "pattern of the EASE + Markov + SASRec model" in " ".join(words)
    title = load_data(open_workspace(run[0])).corpus.catalogue.titles[0]
    delrec("recommend", f"--workdir={run[0]}", f"--history={title}", "-k", "3")
    assert "EASE" in capsys.readouterr().out


def test_its_weights_are_told_and_positive(run):
    facts = json.loads((run[0] / "teacher" / "teacher.json").read_text())
    assert set(facts["weights"]) == set(facts["parts"]) == set(NAME.split("+"))
    assert any(facts["weights"].values()) and 0 < facts["valid_ndcg10"] <= 1
    assert facts["parts"]["sasrec"]["checkpoint"] and facts["parts"]["ease"]["choice"]["tried"] > 1


@pytest.mark.parametrize(
    "name", ["ease+ease", "ease+", "ease + markov", "sasrec+caser+ease", "ease+bm25"]
)
def test_hybrids_that_cannot_be_are_refused(name):
    with pytest.raises(
        UserError, match=r"teacher\.name is .* at most one of sasrec, gru4rec, caser"
    ):
        TeacherConfig(name=name)


def test_a_hybrid_reads_as_much_as_its_parts_do():
    assert TeacherConfig(name="popularity+sasrec").max_length == TeacherConfig().max_length
    assert TeacherConfig(name="sasrec+ease").max_length == 512
    assert TeacherConfig(name="sasrec+ease").network == TeacherConfig()
    assert TeacherConfig(name="markov+ease").network is None


def test_its_network_is_planned_and_beside_it_there_is_no_plan(run):
    experiment, devices = open_workspace(run[0]).experiment, jax.devices()[:1]
    with pytest.raises(UserError, match="shapes that only a corpus determines"):
        planned_tasks(experiment, devices, Assumed(items=50))
    alone = replace(experiment, tune=replace(experiment.tune, beside=""))
    teach = planned_tasks(alone, devices, Assumed(items=50))[0]
    assert (teach.stage, teach.config.name) == ("teach", "sasrec")
