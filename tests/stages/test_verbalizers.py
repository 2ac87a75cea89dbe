"""The verbalizers `first` and `sequence` through the stages (`mean` is the tiny run's, `index` test_frozen's)."""

import json
from collections import defaultdict

import chex
import polars as pl
import pytest
from test_tiny_run import FEWER_SYSTEMS
from tiny_pretrained import FIRST, copy_beginning
from tiny_storefront import CONFIG, delrec, open_workspace

from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.prepared import load_data

OTHERS = {"popularity", "tfidf", "lm_embeddings", "teacher", "hybrid(teacher+tfidf)", "oracle"}
OF_CATALOGUES = {"hybrid(delrec+teacher)"}  # which `sequence` does not score
LANGUAGE = FEWER_SYSTEMS - OTHERS - OF_CATALOGUES


def groups_by_first_token(run):
    """Items by the first token of their titles, those that share it."""
    ws = open_workspace(run)
    data = load_data(ws)
    found = defaultdict(list)
    tokenizer = Inputs(ws).language.tokenizer
    for item, title in enumerate(data.corpus.catalogue.titles):
        found[tokenizer.encode(title)[0]].append(item)
    return data, [group for group in found.values() if len(group) > 1]


@pytest.mark.parametrize("run", ["first_run", "sequence_run"])
def test_prompts_and_adapters_train_by_finite_losses(run, request):
    watched = json.loads((request.getfixturevalue(run) / "watched.json").read_text())
    prompts = {f"prompt/{name}" for name in ("distilled", "shuffled", "true")}
    assert set(watched) == prompts | {"adapter/distilled", "adapter/random"}
    for name, training in watched.items():
        assert training["still"] == [], "this never moved"
        assert len(training["metrics"]) == (3 if name in prompts else 6)
        chex.assert_tree_all_finite(training["metrics"])
        assert all(row["loss"] > 0 for row in training["metrics"])


@pytest.mark.parametrize(
    ("run", "whole", "listed"),
    [
        ("first_run", FEWER_SYSTEMS, FEWER_SYSTEMS),
        ("sequence_run", OTHERS, FEWER_SYSTEMS - OF_CATALOGUES),
    ],
    ids=["first", "sequence"],
)
def test_records_hold_the_protocols_that_the_verbalizer_can_rank(run, whole, listed, request):
    folder = request.getfixturevalue(run) / "records"
    records = pl.read_parquet(folder / "records.parquet")
    for protocol, systems in (
        ("full", whole),
        ("sampled-8", listed),
        ("rerank-8", listed),
    ):
        part = records.filter(pl.col("protocol") == protocol)
        assert set(part["system"]) == systems and len(part) == 48 * len(systems)
        # Rerank lists the teacher's best, so that some targets are among them and some are not.
        assert set(part["rank"].is_finite()) == (
            {True, False} if protocol == "rerank-8" else {True}
        )
        if protocol != "full":
            assert part["candidates"].unique().to_list() == [8]


def test_titles_that_begin_alike_tie_under_first(first_run):
    data, groups = groups_by_first_token(first_run)
    fellows = {item: set(group) - {item} for group in groups for item in group}
    records = pl.read_parquet(first_run / "records" / "records.parquet")
    rows = records.filter(pl.col("system").is_in(LANGUAGE), pl.col("protocol") == "full")
    assert len(rows)
    for row in rows.iter_rows(named=True):
        seen = set(data.split.history("test", row["user"]).tolist())
        assert row["ties"] == len(fellows[row["target"]] - seen), row["system"]
        best, worst = row["rank"] - row["ties"] / 2, row["rank"] + row["ties"] / 2
        assert best == int(best) >= 1 and worst <= row["candidates"]


def test_no_two_titles_tie_under_sequence(sequence_run):
    records = pl.read_parquet(sequence_run / "records" / "records.parquet")
    rows = records.filter(pl.col("system").is_in(LANGUAGE))
    assert (rows["ties"] == 0).all()
    for name in LANGUAGE:
        ranked = rows.filter(pl.col("system") == name, pl.col("protocol") == "sampled-8")
        assert ranked["rank"].n_unique() > 3, "all candidates have one score"


def test_titles_that_no_score_tells_apart_are_listed(first_run, sequence_run, tiny_run):
    data, groups = groups_by_first_token(first_run)
    titles = [[data.corpus.catalogue.titles[item] for item in group] for group in groups]
    assert json.loads((first_run / "lm" / "shared_titles.json").read_text()) == titles != []
    for run in (sequence_run, tiny_run):
        assert json.loads((run / "lm" / "shared_titles.json").read_text()) == []


def test_pretrain_says_how_many_items_tie(tiny_run, pretrained, tmp_path, capsys):
    copy_beginning(tiny_run, tmp_path / "run")
    flags = (*FIRST, f"--config.lm.weights={pretrained}")
    delrec("pretrain", CONFIG, f"--workdir={tmp_path / 'run'}", *flags)
    _, groups = groups_by_first_token(tmp_path / "run")
    said = capsys.readouterr().err
    assert f"{sum(map(len, groups))} items in {len(groups)} groups" in said
    assert "lm.verbalizer=first" in said and "shared_titles.json" in said


def test_recommend_ranks_the_teachers_best_where_candidates_are_decoded(
    sequence_run, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "300")
    history = "--history=Tangled Stone Mystery Book One"
    delrec("recommend", f"--workdir={sequence_run}", history, "-k", "3")
    assert "DELRec (among the teacher's best 8)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        delrec("recommend", f"--workdir={sequence_run}", history, "-k", "9")
    err = capsys.readouterr().err.strip()
    assert "lm.verbalizer=sequence" in err and "-k 8 or less" in err and len(err.splitlines()) == 1
