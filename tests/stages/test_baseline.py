"""`delrec baseline` from a CSV pair: every split, every protocol, against brute force and hand-made changes."""

import json
import re
import sys
from unittest import mock

import numpy as np
import polars as pl
import pytest
from ml_collections import ConfigDict
from tiny_storefront import mark_again

from delrec_jax.cli import main
from delrec_jax.config import BaselinesConfig, from_config
from delrec_jax.evaluation.top_lists import items_of, read_lists
from delrec_jax.teachers import item_to_item
from delrec_jax.teachers.markov import MARKOV
from delrec_jax.teachers.registry import CLOSED_FORMS
from delrec_jax.teachers.windows import training_rows
from delrec_jax.workdir import recommenders, teacher_training
from delrec_jax.workdir.closed_forms import left_out, training_part
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.workspace import Workspace

ITEMS, USERS = 30, 40
CONFIG = """
from delrec_jax.config import default_config


def get_config():
    config = default_config()
    config.data.update(corpus="csv", path=r"{folder}")
    config.teacher.update(name="{teacher}", batch_size=4)
    config.teacher.sasrec.update(width=8, layers=1, heads=1, max_length=8)
    config.teacher.loop.update(steps=4, evaluate_every=2)
    config.candidates.update(num=5, rerank=5)
    config.evaluate.batch_size = 16
    return config
"""


def write_shop(folder, *, seed=0, repeats=False):
    """Users of 6 to 12 interactions; with `repeats` some take an item twice, some their last one again."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        length = int(random.integers(6, 13))
        items = random.choice(ITEMS, length, replace=False, p=np.arange(1, ITEMS + 1) / 465)
        if repeats and user % 2:
            items[-1], items[3] = items[1], items[0]
        start = int(random.integers(1_500_000_000, 1_600_000_000))
        rows += [f"u{user},i{item},{start + 1000 * n}" for n, item in enumerate(items)]
    folder.mkdir(exist_ok=True)
    (folder / "interactions.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    titles = [f"i{item},Title {item}" for item in range(ITEMS)]
    (folder / "items.csv").write_text("item,title\n" + "\n".join(titles) + "\n")


def delrec(command, tmp_path, *flags, teacher="popularity"):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(folder=tmp_path / "shop", teacher=teacher))
    arguments = [command, f"--config={config}", f"--workdir={tmp_path / 'run'}", *flags]
    with mock.patch.object(sys, "argv", ["delrec", *arguments]):
        main()


def opened(tmp_path):
    settings = ConfigDict(read_json(tmp_path / "run" / "config.json"), convert_dict=True)
    ws = Workspace(tmp_path / "run", from_config(settings))
    return ws, load_data(ws)


def records(tmp_path, system):
    table = pl.read_parquet(tmp_path / "run" / "baseline" / "records.parquet")
    return {
        protocol: table.filter(system=system, protocol=protocol).sort("user")
        for protocol in table["protocol"].unique()
    }


def brute_rank(scores, target, ranked):
    """Mean rank of the target among `ranked`, and how many were ranked; infinity where it is not among them."""
    rivals = [scores[item] for item in ranked if item != target]
    greater = sum(score > scores[target] for score in rivals)
    ties = sum(score == scores[target] for score in rivals)
    return (greater + 1 + ties / 2 if target in ranked else np.inf), len(ranked)


@pytest.mark.parametrize("repeats", ["first", "keep"])
@pytest.mark.parametrize("kind", ["leave_one_out", "by_user", "global_temporal"])
def test_popularity_is_ranked_as_by_brute_force(tmp_path, kind, repeats, capsys):
    write_shop(tmp_path / "shop", repeats=True)
    delrec("baseline", tmp_path, f"--config.split.kind={kind}", f"--config.data.repeats={repeats}")
    _, data = opened(tmp_path)
    split, found = data.split, records(tmp_path, "popularity")
    kept, interactions = read_lists(tmp_path / "run" / "baseline")
    lists = items_of(kept.filter(system="popularity").sort("user"))
    counts = np.bincount(split.train.items, minlength=ITEMS)
    assert interactions.tolist() == counts.tolist()
    assert set(found) == {"full", "full_with_seen", "sampled-5", "rerank-5"}
    for row, (history, target) in enumerate(
        zip(split.histories("test"), split.target("test"), strict=True)
    ):
        seen, target = set(history.tolist()), int(target)
        unseen = sorted(set(range(ITEMS)) - seen, key=lambda item: (-counts[item], item))
        ranked = {
            "full": {*unseen, target},
            "full_with_seen": set(range(ITEMS)),
            "sampled-5": set(data.candidates["test"].items[row].tolist()),
            "rerank-5": set(unseen[:5]),
        }
        for protocol, items in ranked.items():
            record = found[protocol].row(row, named=True)
            assert record["user"] == split.users("test")[row]
            assert (record["rank"], record["candidates"]) == brute_rank(counts, target, items)
        assert lists[row].tolist() == unseen[:10]
    warned = capsys.readouterr().err
    assert f"split {kind}: test has only {len(split.users('test'))} users" in warned
    assert ("had their target before" in warned) == (repeats == "keep")
    tables = (tmp_path / "run" / "baseline" / "tables.md").read_text()
    assert "WARNING: split" in tables


def test_users_who_are_asked_train_nothing_under_by_user(tmp_path):
    write_shop(tmp_path / "shop")
    delrec("baseline", tmp_path, "--config.split.kind=by_user", teacher="sasrec")
    ws, data = opened(tmp_path)
    asked = np.concatenate([data.split.users(part) for part in ("valid", "test")])
    assert not data.split.train.lengths[asked].any()
    found = records(tmp_path, "teacher")["full"]
    scores = np.asarray(
        recommenders.load_teacher(ws, data).scores(np.full((1, 8), -1, np.int32))
    )  # also scores a user without any history
    assert np.isfinite(scores).all()
    assert found["rank"].is_between(1, ITEMS).all()


def test_changed_source_files_are_noticed_and_all_that_rests_on_them_is_made_anew(tmp_path, capsys):
    write_shop(tmp_path / "shop")
    delrec("baseline", tmp_path, teacher="sasrec")
    ws, before = opened(tmp_path)
    checkpoint = ws.content("teach")
    delrec("baseline", tmp_path, teacher="sasrec")
    assert "teach: finished before, skipped" in capsys.readouterr().err.rpartition("prepare:")[2]
    write_shop(tmp_path / "shop", seed=1)
    delrec("baseline", tmp_path, teacher="sasrec")
    said = capsys.readouterr().err
    assert "the source files have changed" in said and "skipped" not in said
    ws, after = opened(tmp_path)
    assert ws.content("teach") != checkpoint
    assert not np.array_equal(before.split.train.items, after.split.train.items)


@pytest.mark.parametrize("name", ["split.npz", "candidates_test.npz", "corpus/prepared.json"])
def test_a_lost_file_of_prepare_is_made_again(tmp_path, name):
    write_shop(tmp_path / "shop")
    delrec("baseline", tmp_path)
    metrics = (tmp_path / "run" / "baseline" / "metrics.json").read_bytes()
    (tmp_path / "run" / "data" / name).unlink()
    delrec("baseline", tmp_path)
    assert (tmp_path / "run" / "data" / name).is_file()
    assert (tmp_path / "run" / "baseline" / "metrics.json").read_bytes() == metrics


def test_where_the_raw_files_lie_is_no_setting_of_the_results(tmp_path, capsys):
    write_shop(tmp_path / "shop")
    delrec("prepare", tmp_path)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    stored["data"]["download_dir"] = "elsewhere"
    (tmp_path / "run" / "config.json").write_text(json.dumps(stored))
    delrec("baseline", tmp_path)
    assert "prepare: finished before, skipped" in capsys.readouterr().err


def test_candidates_of_other_users_are_refused(tmp_path, capsys):
    write_shop(tmp_path / "shop")
    delrec("prepare", tmp_path, "--config.split.kind=by_user")
    folder = tmp_path / "run" / "data"
    (folder / "candidates_test.npz").write_bytes((folder / "candidates_valid.npz").read_bytes())
    mark_again(tmp_path / "run", "prepare")
    with pytest.raises(SystemExit):
        delrec("baseline", tmp_path, "--config.split.kind=by_user")
    assert "candidates_test.npz: its users are not those of" in capsys.readouterr().err


def _without_lists(records):
    """Records, less the hash of the teacher's lists, which are made for the users drawn alone."""
    listed = pl.col("protocol").str.starts_with("rerank")
    kept = pl.when(listed).then(pl.lit("")).otherwise("candidate_hash")
    return records.with_columns(kept.alias("candidate_hash"))


def test_drawn_users_have_the_ranks_and_lists_that_they_have_among_all(tmp_path, capsys):
    write_shop(tmp_path / "shop", repeats=True)
    folder, flag = tmp_path / "run" / "baseline", "--config.data.repeats=keep"
    tables = {}
    for users in (0, 18, 11, 1000):
        delrec("baseline", tmp_path, flag, f"--config.evaluate.users={users}", "--update")
        tables[users] = {
            "records": _without_lists(pl.read_parquet(folder / "records.parquet")),
            "lists": read_lists(folder)[0],
            "facts": pl.read_parquet(folder / "users.parquet"),
        }
    drawn = {users: set(found["facts"]["user"]) for users, found in tables.items()}
    assert [len(one) for one in drawn.values()] == [USERS, 18, 11, USERS]
    assert drawn[11] < drawn[18] and drawn[18] != set(range(18))
    for users, own in drawn.items():
        for name, whole in tables[0].items():
            by = [key for key in ("system", "protocol", "user") if key in whole.columns]
            expected = whole.filter(pl.col("user").is_in(own)).sort(by)
            assert tables[users][name].sort(by).equals(expected), (users, name)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("evaluate.batch_size=0", "evaluate.batch_size is 0: it must be at least 1"),
        ("teacher.batch_size=0", "teacher.batch_size is 0"),
        ("teacher.steps_per_call=0", "teacher.steps_per_call is 0"),
        ("candidates.rerank=0", "candidates.rerank is 0"),
        ("candidates.num=1", "candidates.num is 1: it must be at least 2"),
        ("split.test_from=0.85", "split.kind=leave_one_out does not read it"),
        ("data.seed=7", "data.seed = 7 has no effect without data.max_users"),
        ("candidates.rerank=29", "lower it to"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, capsys, flag, message):
    write_shop(tmp_path / "shop")
    with pytest.raises(SystemExit):
        delrec("baseline", tmp_path, f"--config.{flag}")
    assert message in capsys.readouterr().err


def test_baselines_and_hybrids_stand_beside_the_teacher(tmp_path, capsys):
    write_shop(tmp_path / "shop")
    delrec("baseline", tmp_path)
    folder = tmp_path / "run" / "baseline"
    hybrids = {one["system"]: one for one in json.loads((folder / "hybrids.json").read_text())}
    there = set(pl.read_parquet(folder / "records.parquet")["system"])
    assert set(hybrids) == {name for name in BaselinesConfig().hybrid_parts if "delrec" not in name}
    assert there == {*CLOSED_FORMS, "teacher", *hybrids}
    assert "hybrid(delrec+teacher) is left out: delrec cannot" in capsys.readouterr().err
    tested = {
        (one["system"], one["reference"])
        for one in json.loads((folder / "comparisons.json").read_text())
    }
    assert {(name, one["best_part"]) for name, one in hybrids.items()} <= tested
    assert {(name, "teacher") for name in there - {"teacher"}} <= tested
    assert "Paired tests" in (folder / "tables.md").read_text()

    # Ranks of a baseline are those of its chosen settings, fitted on the training part alone.
    _, data = opened(tmp_path)
    chosen = json.loads((tmp_path / "run" / "closed_forms" / "settings.json").read_text())["markov"]
    matrix = MARKOV.fit(training_part(data), **chosen["settings"]).matrix
    decay, floor = (chosen["by_recency"][name] for name in ("decay", "floor"))
    found = records(tmp_path, "markov")["full_with_seen"]
    for row, (history, target) in enumerate(
        zip(data.split.histories("test"), data.split.target("test"), strict=True)
    ):
        ages = np.arange(len(history))[::-1]
        weights = (floor + (1 - floor) * decay**ages).astype(np.float32)
        scores = weights @ np.asarray(matrix)[history]
        rank, _ = brute_rank(np.round(scores, 5), int(target), set(range(ITEMS)))
        assert found.row(row, named=True)["rank"] == pytest.approx(rank, abs=0.5)


def test_a_baseline_that_cannot_be_is_left_out_with_the_reason(tmp_path, capsys, monkeypatch):
    write_shop(tmp_path / "shop")
    monkeypatch.setattr(item_to_item, "MOST_ITEMS", ITEMS - 1)
    delrec("baseline", tmp_path)
    said = capsys.readouterr().err
    assert "EASE is left out: EASE: a catalogue of 30 items needs a matrix of" in said
    assert "hybrid(markov+ease) is left out: markov, ease cannot be part of it here" in said
    table = pl.read_parquet(tmp_path / "run" / "baseline" / "records.parquet")
    assert set(table["system"]) == {"popularity", "teacher"}
    told = left_out(opened(tmp_path)[0])
    assert len(told) == len(CLOSED_FORMS) - 1
    assert any(
        one.startswith("The baseline EASE was left out: EASE: a catalogue of 30 items")
        for one in told
    )
    with pytest.raises(SystemExit):
        delrec("teach", tmp_path, "--config.teacher.name=ease", "--update")
    assert "take another teacher.name" in capsys.readouterr().err


def test_a_teacher_may_be_selected_by_a_draw_of_users(tmp_path, monkeypatch):
    write_shop(tmp_path / "shop")
    asked, rank = [], teacher_training.rank_users

    def watched(score, rankers, **given):
        asked.append(given["order"].tolist())
        return rank(score, rankers, **given)

    monkeypatch.setattr(teacher_training, "rank_users", watched)
    drawn = {}
    for seed, users in ((0, 7), (1, 7), (0, 3), (0, 0)):
        flags = (f"--config.seed={seed}", f"--config.teacher.valid_users={users}", "--update")
        delrec("prepare", tmp_path, *flags, teacher="sasrec")
        asked.clear()
        delrec("teach", tmp_path, *flags, teacher="sasrec")
        assert asked and all(one == asked[0] for one in asked)
        drawn[seed, users] = set(asked[0])
        assert len(drawn[seed, users]) == len(asked[0]) == (users or USERS)
    assert drawn[0, 7] == drawn[1, 7] and drawn[0, 3] < drawn[0, 7]


@pytest.mark.parametrize("rate", [0.01, 1e-9])
def test_a_teacher_tells_its_epochs_and_whether_it_still_improved(tmp_path, capsys, rate):
    write_shop(tmp_path / "shop")
    given = {"teacher": "sasrec"}
    delrec("prepare", tmp_path, **given)
    capsys.readouterr()
    delrec(
        "teach", tmp_path, f"--config.teacher.optimizer.learning_rate={rate}", "--update", **given
    )
    said = capsys.readouterr().err
    train = opened(tmp_path)[1].split.train
    rows = len(training_rows(train.offsets, train.items, length=8))
    (best,) = re.findall(rf"at step (\d+) of 4, which are {4 * 4 / rows:.3g} epochs", said)
    assert ("it was still improving" in said) == (best == "4")
