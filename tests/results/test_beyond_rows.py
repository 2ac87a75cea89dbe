"""Aggregates of lists, costs and groups of users, from files that are worked out by hand."""

import json

import numpy as np
import polars as pl
import pytest

from delrec_jax.errors import UserError
from delrec_jax.evaluation.top_lists import LENGTH, lists_table, write_lists
from delrec_jax.evaluation.user_facts import write_user_facts
from delrec_jax.results.beyond import beyond_rows, read_costs
from delrec_jax.results.user_groups import user_groups

COUNTS = np.array([3, 1, 0, 0])
RUNS = [
    {"folder": "prompt/distilled", "seconds": 10.0, "timed_seconds": 4.0, "timed_examples": 8.0},
    {"folder": "adapter/distilled", "seconds": 20.0, "timed_seconds": 2.0, "timed_examples": 4.0},
]


def write_folder(folder, seed, delrec, *, users=(0, 1), timed=2):
    """The files of an evaluation of two users; delrec's list has one item per user."""
    folder.mkdir()
    baselines = {"popularity": [0, 1], "hybrid(popularity+ease)": [1, 0]}
    lists = {"teacher": [0, 0], "delrec": delrec, **baselines}
    tables = [
        lists_table(
            name,
            "sasrec",
            seed,
            users=np.array(users),
            items=np.pad(np.array(items)[:, None], ((0, 0), (0, LENGTH - 1)), constant_values=-1),
        )
        for name, items in lists.items()
    ]
    write_lists(folder, pl.concat(tables), interactions=COUNTS)
    pl.DataFrame({"user": users, "target": [0, 3]}).write_parquet(folder / "records.parquet")
    ranked = {"teacher": "sasrec", "seed": seed, "seconds": 3.0 + seed, "timed_users": timed}
    cost = {
        "memory": {"process_gib": 1.5, "device_gib": None},
        "training": [{**run, "parameters": 100} for run in RUNS],
        "systems": [
            {**ranked, "system": "delrec", "trained": [run["folder"] for run in RUNS]},
            {**ranked, "system": "teacher", "trained": []},
        ],
    }
    (folder / "cost.json").write_text(json.dumps(cost))


def test_rows_are_means_over_seeds_by_system_teacher_and_label(tmp_path):
    write_folder(tmp_path / "a", 0, [0, 1])
    write_folder(tmp_path / "b", 1, [2, 1], timed=0)
    write_folder(tmp_path / "c", 0, [0, 1])
    sources = [("", tmp_path / "a"), ("", tmp_path / "b"), ("k=10", tmp_path / "c")]
    rows = {(row["system"], row["teacher"], row["label"]): row for row in beyond_rows(sources)}
    names = ["popularity", "hybrid(popularity+ease)", "teacher", "delrec", "targets"]
    assert [key[0] for key in rows] == names * 2
    row = rows["delrec", "sasrec", ""]
    assert (row["seeds"], row["users"]) == ([0, 1], 2)
    # Percentiles of the items: 1, 2/3, 1/6, 1/6.
    means = [(1 + 2 / 3) / 2, (1 / 6 + 2 / 3) / 2]
    found = row["popularity"]
    assert found["mean"] == pytest.approx(np.mean(means), rel=1e-5)
    assert found["sd"] == pytest.approx(np.std(means, ddof=1), rel=1e-5)
    assert row["jaccard"] == {"mean": 0.25, "sd": pytest.approx(0.353553)}
    assert row["jaccard_of_seeds"] == 0.5  # the first user's item differs, the second's does not
    assert rows["teacher", "sasrec", ""]["jaccard_of_seeds"] == 1
    assert "jaccard" not in rows["teacher", "sasrec", ""]
    for name in names[:2]:  # no seed can change them
        assert rows[name, "", ""]["coverage"] == {"mean": 0.5, "sd": None}
        assert "jaccard_of_seeds" not in rows[name, "", ""] and not rows[name, "", ""]["seeds"]
    assert rows["delrec", "sasrec", "k=10"]["coverage"] == {"mean": 0.5, "sd": None}
    assert "jaccard_of_seeds" not in rows["delrec", "sasrec", "k=10"]
    assert rows["targets", "", ""]["popularity"]["mean"] == pytest.approx((1 + 1 / 6) / 2, rel=1e-5)


def test_costs_are_those_of_all_training_runs_of_a_system(tmp_path):
    write_folder(tmp_path / "a", 0, [0, 1])
    assert read_costs(tmp_path / "a") == {
        ("delrec", "sasrec", 0): {
            "trained_parameters": 200,
            "train_seconds": 30.0,
            "seconds_per_example": 0.5,
            "seconds_per_user": 1.5,
            "memory_gib": 1.5,
        },
        ("teacher", "sasrec", 0): {
            "trained_parameters": 0,
            "train_seconds": 0,
            "seconds_per_example": None,
            "seconds_per_user": 1.5,
            "memory_gib": 1.5,
        },
    }
    write_folder(tmp_path / "b", 1, [0, 1], timed=0)
    rows = beyond_rows([("", tmp_path / "a"), ("", tmp_path / "b")])
    (row,) = (one for one in rows if one["system"] == "delrec")
    assert row["seconds_per_user"] == {"mean": 1.5, "sd": None}  # the other seed was not timed
    assert row["trained_parameters"] == {"mean": 200, "sd": 0}


def test_workdirs_of_earlier_versions_have_no_rows(tmp_path):
    assert beyond_rows([("", tmp_path)]) == [] and read_costs(tmp_path) is None
    assert user_groups(tmp_path) is None


def test_what_cannot_be_joined_is_refused(tmp_path):
    write_folder(tmp_path / "a", 0, [0, 1])
    write_folder(tmp_path / "b", 0, [0, 1])
    write_folder(tmp_path / "c", 1, [0, 1], users=(0, 2))
    with pytest.raises(UserError, match=r"seed 0.* is in another folder too"):
        beyond_rows([("", tmp_path / "a"), ("", tmp_path / "b")])
    with pytest.raises(UserError, match="its test users are not those"):
        beyond_rows([("", tmp_path / "a"), ("", tmp_path / "c")])
    (tmp_path / "a" / "cost.json").write_text("{}")
    with pytest.raises(UserError, match=r"cost.json: not a file of costs"):
        beyond_rows([("", tmp_path / "a")])


def test_groups_of_users_have_fixed_bins(tmp_path):
    users = np.array([3, 1, 2, 7])
    pl.DataFrame({"user": [1, 1, 2, 3, 7]}).write_parquet(tmp_path / "records.parquet")
    write_user_facts(
        tmp_path,
        users=users,
        history=np.array([4, 5, 49, 60]),
        target_count=np.array([0, 9, 50, 1]),
    )
    found = {
        name: np.flatnonzero(inside).tolist() for name, inside in user_groups(tmp_path).items()
    }
    assert found == {  # users 1, 2, 3, 7
        "history 1-4": [2],
        "history 5-9": [0],
        "history 20-49": [1],
        "history 50+": [3],
        "count 0": [2],
        "count 1-4": [3],
        "count 5-9": [0],
        "count 50+": [1],
    }
    assert user_groups(tmp_path, users=users)["history 1-4"].tolist() == [True, False, False, False]
    with pytest.raises(UserError, match=r"users.parquet: user 9 of the records is missing"):
        user_groups(tmp_path, users=np.array([1, 9]))
    with pytest.raises(UserError, match="column 'history', row 0"):
        write_user_facts(tmp_path, users=users[:1], history=users[:1] - 9, target_count=users[:1])
