"""Hybrids of systems that several groups share are chosen and ranked once, and written for each group as if they were not."""

from dataclasses import asdict, replace

import numpy as np
import polars as pl
import pytest
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.workdir import hybrids
from delrec_jax.workdir.cost import Key
from delrec_jax.workdir.evaluation import Evaluation
from delrec_jax.workdir.prepared import load_data

HYBRIDS = ("ease+markov", "ease+teacher", "tfidf+ease", "markov+tfidf+teacher")


class Table:
    """A system whose scores are drawn, and that says what it was asked."""

    def __init__(self, data, seed):
        rng = np.random.default_rng(seed)
        self.of, self.asked = {}, []
        for part in ("valid", "test"):
            targets = data.split.target(part)
            scores = rng.normal(size=(len(targets), data.num_items)).astype(np.float32)
            scores[np.arange(len(targets)), targets] += rng.normal(size=len(targets)) + 1
            self.of[part] = scores

    def scores(self, part, rows):
        self.asked += [(part, row) for row in dict.fromkeys(rows.tolist())]
        return self.of[part][rows]

    def order(self, part):
        return None


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("groups") / "run"
    delrec("prepare", CONFIG, f"--workdir={workdir}", *TINY)
    return open_workspace(workdir)


def evaluated(ws, data, once, monkeypatch):
    """The evaluation of three groups, and what its shared systems were asked."""
    base = ws.experiment
    chosen = replace(base.baselines, hybrids=HYBRIDS)
    run = Evaluation(replace(base, baselines=chosen), data)
    common = {name: Table(data, seed) for seed, name in enumerate(("ease", "markov", "tfidf"))}
    choices = []
    choose = hybrids.HybridWeights.choose
    monkeypatch.setattr(
        hybrids.HybridWeights,
        "choose",
        lambda self, parts: choices.append(tuple(parts)) or choose(self, parts),
    )
    for seed in range(3):
        own = {"teacher": Table(data, 10 + seed)}
        given = (own, common) if once else ({**common, **own}, None)
        run.rank_hybrids(given[0], common=given[1], teacher="gru4rec", seed=seed)
    return run, common, choices


def test_each_group_has_the_records_that_it_would_have_alone(ws, monkeypatch):
    data = load_data(ws)
    apart, _, _ = evaluated(ws, data, False, monkeypatch)
    run, common, choices = evaluated(ws, data, True, monkeypatch)
    assert pl.concat(run.tables).equals(pl.concat(apart.tables))
    assert pl.concat(run.lists).equals(pl.concat(apart.lists))
    assert run.hybrids == apart.hybrids and len(run.hybrids) == 3 * len(HYBRIDS)
    keys = [Key(f"hybrid({name})", "gru4rec", seed) for seed in range(3) for name in HYBRIDS]
    assert list(run._costs._systems) == list(apart._costs._systems) == keys
    assert all(asdict(one)["passes"] == 1 for one in run._costs._systems.values())
    values = metrics_of_ranks(pl.concat(run.tables)["rank"].to_numpy())["HR@10"]
    assert 0 < values.mean() < 1
    # Two hybrids of shared systems once, and two of each group's own.
    assert len(choices) == 2 + 3 * 2
    users = len(data.split.users("valid"))
    for name, table in common.items():
        assert len([part for part, _ in table.asked if part == "valid"]) == users, name
