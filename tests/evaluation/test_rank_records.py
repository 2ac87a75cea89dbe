import numpy as np
import polars as pl
import pytest

from delrec_jax.errors import UserError
from delrec_jax.evaluation import records as rec
from delrec_jax.evaluation.metrics import expected_metrics
from delrec_jax.evaluation.systems import is_system, system_order


def table(system="teacher", ranks=(1.0, 2.5, np.inf), **key):
    key = {"corpus": "toy", "split": "leave_one_out", "protocol": "full", "seed": 3} | key
    users = np.arange(len(ranks))
    return rec.record_table(
        rec.RecordKey(system=system, **key),
        users=users,
        targets=users + 10,
        ranks=np.array(ranks),
        ties=np.zeros(len(ranks), int),
        candidates=40,
        cold=users == 1,
        head=users == 2,
    )


def test_records_survive_the_file(tmp_path):
    path = tmp_path / "deep" / "records.parquet"
    written = pl.concat([table(), table("delrec", step=120, beside="teacher", candidate_hash="ab")])
    rec.write_records(path, written)
    assert rec.read_records(path).equals(written)
    assert dict(written.schema) == {name: kind() for name, kind in rec.RECORD_SCHEMA.items()}
    assert [file.name for file in path.parent.iterdir()] == ["records.parquet"]


def test_every_user_is_in_one_part_by_the_popularity_of_his_target():
    rows = table(ranks=(1.0,) * 4)
    found = {
        name: rows.filter(inside)["user"].to_list() for name, inside in rec.PART_OF_USERS.items()
    }
    assert found == {"head": [2], "tail": [0, 3], "cold": [1]}


def test_equal_records_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        rec.write_records(tmp_path / name, table())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "records.parquet"
    rec.write_records(path, table())

    def torn(self, file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", torn)
    with pytest.raises(OSError, match="disk full"):
        rec.write_records(path, table("delrec"))
    monkeypatch.undo()
    assert rec.read_records(path)["system"].unique().to_list() == ["teacher"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("spoil", "column"),
    [
        (lambda t: t.drop("ties"), "ties"),
        (lambda t: t.with_columns(pl.lit(-1, pl.Int32).alias("ties")), "ties"),
        (lambda t: t.with_columns(pl.col("rank").cast(pl.Float32)), "rank"),
        (lambda t: t.with_columns(pl.lit("sasrec2").alias("system")), "system"),
        (lambda t: t.with_columns(pl.lit(0.0).alias("rank")), "rank"),
        (lambda t: t.with_columns(pl.lit(float("nan")).alias("rank")), "rank"),
        (lambda t: t.with_columns(pl.lit(None, pl.Boolean).alias("cold")), "cold"),
        (lambda t: t.drop("head"), "head"),
        (lambda t: t.with_columns(pl.lit(True).alias("head")), "head"),
        (lambda t: pl.concat([t, t]), "user"),
        (lambda t: pl.concat([t, t.with_columns(pl.lit(7, pl.Int32).alias("step"))]), "user"),
        (lambda t: t.with_columns(pl.lit(-2, pl.Int32).alias("step")), "step"),
    ],
)
def test_a_spoiled_file_names_itself_and_the_column(tmp_path, spoil, column):
    path = tmp_path / "records.parquet"
    spoil(table()).write_parquet(path)
    with pytest.raises(UserError, match=rf"records\.parquet: column '{column}'"):
        rec.read_records(path)
    with pytest.raises(UserError, match=rf"column '{column}'"):
        rec.write_records(tmp_path / "new.parquet", spoil(table()))
    assert not (tmp_path / "new.parquet").exists()


def test_missing_and_corrupt_files_are_user_errors(tmp_path):
    path = tmp_path / "records.parquet"
    with pytest.raises(UserError, match=r"no such records file.*delrec evaluate"):
        rec.read_records(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="not a readable parquet"):
        rec.read_records(path)


def test_the_same_user_may_recur_in_another_run(tmp_path):
    both = pl.concat([table(), table(seed=4), table(teacher="caser")])
    rec.write_records(tmp_path / "records.parquet", both)
    assert rec.read_records(tmp_path / "records.parquet").equals(both)


def test_summary_is_mean_and_interval_of_each_group_and_ignores_row_order():
    rows = pl.concat([table(), table("delrec", ranks=(1.0, 1.0, 3.0))])
    values = rec.metric_values(rows)
    summary = rec.summarise(values, ["system"])
    shuffled = rec.summarise(values.sample(fraction=1, shuffle=True, seed=1), ["system"])
    assert summary.equals(shuffled)
    teacher = summary.filter(system="teacher", metric="HR@5").row(0, named=True)
    assert teacher["value"] == pytest.approx(2 / 3)
    assert teacher["ci_low"] < 2 / 3 < teacher["ci_high"]
    assert teacher["users"] == 3
    assert summary.filter(system="delrec", metric="HR@1")["value"][0] == pytest.approx(2 / 3)


def test_groups_of_other_sizes_are_summarized_as_if_each_were_alone(monkeypatch):
    monkeypatch.setattr(rec, "_GROUPS_AT_ONCE", 2)
    random, rows = np.random.default_rng(0), []
    for seed, users in enumerate((30, 12, 30, 30, 12, 7)):
        rows.append(table(seed=seed, ranks=1.0 + random.integers(0, 15, users)))
    found = rec.summarise(rec.metric_values(pl.concat(rows)), ["seed"])
    alone = [rec.summarise(rec.metric_values(one), ["seed"]) for one in rows]
    assert found.equals(pl.concat(alone))


def test_expected_values_survive_the_file_and_come_back_wide(tmp_path):
    values = expected_metrics(np.array([[0.6, 0.4], [0.3, 0.7]]))
    cold = np.array([False, True])
    expected = rec.expected_table("full", users=np.array([0, 1]), values=values, cold=cold)
    rec.write_expected(tmp_path / "e.parquet", expected)
    read = rec.read_expected(tmp_path / "e.parquet")
    assert read.equals(expected)
    wide = rec.wide_expected(read).sort("user")
    for name in rec.METRICS:
        np.testing.assert_array_equal(wide[name].to_numpy(), values[name])
    with pytest.raises(UserError, match="column 'value'"):
        rec.write_expected(tmp_path / "f", expected.with_columns(pl.lit(1.5).alias("value")))
    with pytest.raises(UserError, match="column 'metric'"):
        rec.write_expected(tmp_path / "f", expected.with_columns(pl.lit("AUC").alias("metric")))
    with pytest.raises(UserError, match="column 'user'"):
        rec.write_expected(tmp_path / "f", pl.concat([expected] * 2))
    expected.with_columns(pl.lit(1.5).alias("value")).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(UserError, match=r"e\.parquet: column 'value'"):
        rec.read_expected(tmp_path / "e.parquet")


def test_a_folder_may_be_called_like_a_pattern_and_the_first_wrong_row_is_named(tmp_path):
    path = tmp_path / "seed[1]" / "records.parquet"
    rec.write_records(path, table())
    assert rec.read_records(path).equals(table())
    table().with_columns(pl.Series("rank", [1.0, 0.5, 0.25])).write_parquet(path)
    with pytest.raises(UserError, match=r"column 'rank', row 1: found 0\.5"):
        rec.read_records(path)


def test_what_a_key_leaves_out():
    key = rec.RecordKey("toy", "by_user", "full", "teacher")
    assert (key.teacher, key.seed, key.step, key.beside, key.candidate_hash) == ("", 0, -1, "", "")


def test_a_summary_draws_by_seed_0():
    values = rec.metric_values(table(ranks=1.0 + np.arange(40) % 13))
    found = rec.summarise(values, ["system"])
    assert found.equals(rec.summarise(values, ["system"], seed=0))
    assert not found.equals(rec.summarise(values, ["system"], seed=1))


def test_expected_values_lie_from_0_to_1():
    values = {name: np.array([0.0, 1.0]) for name in rec.METRICS}
    cold = np.zeros(2, bool)
    rec.expected_table("full", users=np.arange(2), values=values, cold=cold)
    for wrong in (-0.5, 1.001):
        with pytest.raises(UserError, match="column 'value'"):
            spoilt = values | {"MRR": np.array([0.5, wrong])}
            rec.expected_table("full", users=np.arange(2), values=spoilt, cold=cold)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("hybrid(teacher+tfidf)", True),
        ("hybrid(teacher)", False),
        ("hybrid(teacher+tfidf", False),
        ("teacher+tfidf)", False),
        ("hybrid(teacher+oracle)", False),
        ("hybrid(teacher+x)", False),
        ("oracle", True),
        ("x", False),
    ],
)
def test_names_of_systems(name, known):
    assert is_system(name) is known


def test_hybrids_stand_before_the_oracle_and_shorter_ones_first():
    ordered = ["ease", "delrec", "hybrid(teacher+tfidf)", "hybrid(popularity+tfidf+ease)", "oracle"]
    assert sorted(reversed(ordered), key=system_order) == ordered
