"""An evaluation that is interrupted goes on with what it had not ranked, and ends with the records of an undisturbed one."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

from delrec_jax.workdir import hybrids
from delrec_jax.workdir.evaluation import Evaluation
from delrec_jax.workdir.language_scorer import LanguageSystem
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.ranked_so_far import RankedSoFar

NAMES = ("markov", "ease", "tfidf")
HYBRIDS = ("ease+markov", "markov+tfidf")


class Interrupted(Exception):
    """What ends the process, for these tests."""


class Table:
    """A system whose scores are drawn; it counts the users that it was asked for, and may end the process."""

    def __init__(self, data, seed, *, ends=False):
        rng = np.random.default_rng(seed)
        self.asked, self._ends = {"valid": 0, "test": 0}, ends
        self._of = {
            part: rng.normal(size=(len(data.split.target(part)), data.num_items)).astype(np.float32)
            for part in ("valid", "test")
        }

    def scores(self, part, rows):
        self.asked[part] += len(rows)
        if self._ends and part == "test":
            raise Interrupted
        return self._of[part][rows]

    def order(self, part):
        return None


class Candidates:
    """A language model that only scores listed candidates; it keeps which ones it was asked for."""

    ranks_catalogue, buckets = False, (8,)

    def __init__(self, *, ends_after=99):
        self.asked, self._left = [], ends_after

    def lengths(self, system, histories, candidates):
        return np.full(len(histories), 8)

    def texts(self, system, histories, candidates, *, least):
        return None

    def candidates(self, parts, texts, candidates):
        if self._left == 0:
            raise Interrupted
        self._left -= 1
        self.asked.append(candidates.shape[1])
        return (candidates * 7919 % 101).astype(np.float32)


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("interrupted") / "run"
    delrec("prepare", CONFIG, f"--workdir={workdir}", *TINY)
    return open_workspace(workdir)


@pytest.fixture(scope="module")
def data(ws):
    return load_data(ws)


def evaluation(ws, data, folder):
    chosen = replace(ws.experiment.baselines, hybrids=HYBRIDS)
    return Evaluation(replace(ws.experiment, baselines=chosen), data, RankedSoFar(folder))


def evaluate(ws, data, folder, systems, scorer):
    """Ranks all of them and writes the records."""
    run, order = evaluation(ws, data, folder), np.arange(data.num_items, dtype=np.float32)
    run.protocols.add_rerank(lambda histories: np.tile(order, (len(histories), 1)))
    for name, system in systems.items():
        run.rank_system(name, system)
    run.rank_language_system("delrec", scorer, LanguageSystem(()))
    run.rank_hybrids(systems)
    run.write(folder, root=folder)
    return run


def systems(data, *, ends=None):
    return {name: Table(data, seed, ends=name == ends) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def undisturbed(ws, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, evaluate(ws, data, folder, systems(data), Candidates())


def same_files(folder, undisturbed):
    for name in ("records.parquet", "items.parquet", "hybrids.json"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    ours, theirs = (json.loads((one / "cost.json").read_text()) for one in (folder, undisturbed))
    kept = [
        [{key: row[key] for key in ("system", "users", "passes")} for row in one["systems"]]
        for one in (ours, theirs)
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 3 + 1 + 2


def test_systems_that_were_ranked_are_not_asked_again(ws, data, tmp_path, undisturbed, capsys):
    with pytest.raises(Interrupted):
        evaluate(ws, data, tmp_path, systems(data, ends="tfidf"), Candidates())
    assert len(list((tmp_path / "so_far").iterdir())) == 2
    capsys.readouterr()
    again, users = systems(data), len(data.split.target("test"))
    run = evaluate(ws, data, tmp_path, again, Candidates())
    assert "goes on: 2 results of an interrupted evaluation are there" in capsys.readouterr().err
    # Hybrids ask each of their systems once more.
    assert [one.asked["test"] for one in again.values()] == [users, users, 2 * users]
    same_files(tmp_path, undisturbed[0])
    assert pl.concat(run.tables).equals(pl.concat(undisturbed[1].tables))
    assert not (tmp_path / "so_far").exists()


def test_protocols_of_a_language_model_that_lists_candidates(ws, data, tmp_path, undisturbed):
    whole = Candidates()
    evaluate(ws, data, tmp_path / "whole", systems(data), whole)
    assert len(whole.asked) > 1
    with pytest.raises(Interrupted):
        evaluate(ws, data, tmp_path, systems(data), Candidates(ends_after=1))
    rest = Candidates()
    evaluate(ws, data, tmp_path, systems(data), rest)
    assert rest.asked == whole.asked[1:]
    same_files(tmp_path, undisturbed[0])


def test_weights_of_hybrids_are_chosen_once(ws, data, tmp_path, undisturbed, monkeypatch):
    choose, chosen = hybrids.HybridWeights.choose, []

    def counted(self, parts):
        if len(chosen) == 1 and not again:
            raise Interrupted
        chosen.append("+".join(parts))
        return choose(self, parts)

    monkeypatch.setattr(hybrids.HybridWeights, "choose", counted)
    again = False
    with pytest.raises(Interrupted):
        evaluate(ws, data, tmp_path, systems(data), Candidates())
    again = True
    evaluate(ws, data, tmp_path, systems(data), Candidates())
    assert chosen == list(HYBRIDS)
    same_files(tmp_path, undisturbed[0])


def test_hybrids_that_were_ranked_ask_nobody(ws, data, tmp_path, undisturbed, monkeypatch):
    def full(self, folder, *, root):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "write", full)
        with pytest.raises(Interrupted):
            evaluate(ws, data, tmp_path, systems(data), Candidates())
    again = systems(data, ends="tfidf")
    evaluate(ws, data, tmp_path, again, Candidates(ends_after=0))
    assert all(one.asked == {"valid": 0, "test": 0} for one in again.values())
    same_files(tmp_path, undisturbed[0])


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_counts_as_none(ws, data, tmp_path, undisturbed, damage):
    with pytest.raises(Interrupted):
        evaluate(ws, data, tmp_path, systems(data, ends="ease"), Candidates())
    [file] = (tmp_path / "so_far").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(
        {"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage]
    )
    again = systems(data)
    evaluate(ws, data, tmp_path, again, Candidates())
    assert again["markov"].asked["test"] == 2 * len(data.split.target("test"))
    same_files(tmp_path, undisturbed[0])
