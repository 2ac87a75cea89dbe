"""The first screen of finished runs: its numbers are those of the records, and no other."""

import json
import re

import numpy as np
import polars as pl
import pytest
from tiny_storefront import open_workspace

from delrec_jax.evaluation.records import metric_values, read_records
from delrec_jax.evaluation.systems import SIMPLE_BASELINES
from delrec_jax.evaluation.top_lists import read_lists
from delrec_jax.workdir.prepared import load_data

RUNS = {"tiny_run": ("delrec", 3), "p2rec_run": ("teacher_augmented", 4)}


@pytest.fixture(params=RUNS)
def run(request):
    return request.getfixturevalue(request.param), *RUNS[request.param]


def of_records(workdir):
    """Each user's NDCG@10 in the whole catalogue, mean over seeds, by (system, teacher)."""
    table = read_records(workdir / "records" / "records.parquet").filter(protocol="full")
    values = (
        metric_values(table).group_by("system", "teacher", "user").agg(pl.col("NDCG@10").mean())
    )
    parts = values.sort("user").partition_by("system", "teacher", as_dict=True)
    return {key: own["NDCG@10"].to_numpy() for key, own in parts.items()}


def test_every_mean_and_difference_is_that_of_the_records(run):
    workdir, method, _ = run
    told = json.loads((workdir / "report" / "headline.json").read_text())
    found = of_records(workdir)
    assert len(told["standings"]) == len(found) - 1, "the oracle is no system"
    first = {system: own for (system, _), own in found.items()}
    for row in told["standings"]:
        own = found[row["system"], row["teacher"]] if row["teacher"] else first[row["system"]]
        assert row["value"] == pytest.approx(own.mean()) and row["users"] == 48
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert told["tests"] and {row["system"] for row in told["tests"]} == {method}
    for row in told["tests"]:
        ours, reference = found[method, row["teacher"]], row["reference"]
        theirs = found.get((reference, row["teacher"]), first[reference])
        assert row["difference"] == pytest.approx((ours - theirs).mean())
        assert row["p_value"] <= row["p_adjusted"] <= 1
    simple = {name: first[name].mean() for name in SIMPLE_BASELINES if name in first}
    assert told["baseline"] == max(simple, key=simple.get)
    assert told["baseline"] in {row["reference"] for row in told["tests"]}


def test_the_sentences_say_these_numbers_and_no_more_than_the_tests(run):
    workdir, method, digits = run
    told = json.loads((workdir / "report" / "headline.json").read_text())
    page = (workdir / "report" / "index.html").read_text()
    own = [row for row in told["standings"] if row["system"] == method]
    assert len(told["sentences"]) == len(own)
    for row, said in zip(own, told["sentences"], strict=True):
        assert f"has {row['value']:.{digits}f} NDCG@10" in said[0]
        shown = [
            one
            for one in told["tests"]
            if one["teacher"] == row["teacher"]
            and one["p_adjusted"] < 0.05
            and one["ci_low"] * one["ci_high"] > 0
        ]
        sizes = {f"{abs(one['difference']):.{digits}f}" for one in shown}
        assert set(re.findall(r"([\d.]+) (?:more|less) than", " ".join(said))) <= sizes
        for sentence in said:
            assert sentence.replace("'", "&#39;").replace("<", "&lt;") in page
    generated = "The corpus is generated" in told["small_print"]
    assert generated and f"oracle) has {told['oracle']:.{digits}f}" in page


def test_the_users_are_those_of_the_records_with_their_lists(run):
    workdir, method, _ = run
    page = (workdir / "report" / "index.html").read_text()
    table = page[page.index('id="user-table"') :].split("</table>")[0]
    rows = re.findall(r'<tr data-group="(\w+)"><th scope="row">(\d+)<(.*?)</tr>', table, re.DOTALL)
    assert len(rows) > 12
    records = read_records(workdir / "records" / "records.parquet")
    one_run = {"protocol": "full", "teacher": "sasrec", "seed": 0}
    ranks = {
        (row["system"], row["user"]): row for row in records.filter(**one_run).iter_rows(named=True)
    }
    lists = {
        (row["system"], row["user"]): row["items"]
        for row in read_lists(workdir / "records")[0].filter(teacher="sasrec", seed=0).to_dicts()
    }
    data = load_data(open_workspace(workdir))
    titles = data.corpus.catalogue.titles
    for group, user, row in rows:
        user = int(user)
        right = [bool(ranks[name, user]["rank"] <= 5) for name in (method, "teacher")]
        groups = {(1, 0): "ours_only", (0, 1): "theirs_only", (1, 1): "both", (0, 0): "neither"}
        assert groups[tuple(right)] == group
        history, target, ours, theirs, _ = row.split("<td>")[1:]
        target_item = ranks[method, user]["target"]
        assert f"<strong>{titles[target_item]}</strong>" in target
        shown = [titles[item] for item in data.split.history("test", user)[-10:]]
        assert re.findall(r"<li>(.*?)</li>", history) == shown
        for name, cell in ((method, ours), ("teacher", theirs)):
            assert f"rank {ranks[name, user]['rank']:g}<" in cell
            listed = re.findall(r"<li>(?:<mark>)?(.*?)(?:</mark>)?</li>", cell)
            assert listed == [titles[item] for item in lists[name, user][:5]]
            marked = target_item in np.asarray(lists[name, user][:5])
            assert ("<mark>" in cell) == marked
