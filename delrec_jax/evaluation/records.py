"""Rank records: one parquet row per user, system and protocol, and what is computed from them.

Everything after evaluation (metrics, tests, tables, plots) starts from these files, so
every number in a report can be checked without a model. A second file holds expected metric
values (of the oracle), which are computed from probabilities and have no rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from delrec_jax.evaluation.metrics import METRICS, Interval, bootstrap_intervals, metrics_of_ranks
from delrec_jax.evaluation.parquet_tables import (
    Schema,
    check_schema,
    ordered,
    read_parquet,
    refuse,
    write_parquet,
)
from delrec_jax.evaluation.systems import SYSTEMS, is_system

__all__ = [
    "EXPECTED_SCHEMA",
    "METRICS",
    "PART_OF_USERS",
    "RECORD_SCHEMA",
    "RecordKey",
    "expected_table",
    "metric_values",
    "read_expected",
    "read_records",
    "record_table",
    "summarise",
    "wide_expected",
    "write_expected",
    "write_records",
]

# Users of groups whose intervals are computed together, and groups: both bound memory.
_ROWS_AT_ONCE = 2_000_000
_GROUPS_AT_ONCE = 32

RECORD_SCHEMA: Schema = {
    "user": pl.Int32,  # index
    "corpus": pl.String,
    "split": pl.String,
    "protocol": pl.String,  # "full", "sampled-20", ...
    "system": pl.String,  # one of SYSTEMS, or hybrid(A+B)
    "teacher": pl.String,  # "" where no teacher is involved
    "seed": pl.Int64,
    "target": pl.Int32,  # item index
    "rank": pl.Float64,  # mean rank of the tie; infinity: not among the candidates
    "ties": pl.Int32,
    "candidates": pl.Int32,  # number of items that were ranked
    "candidate_hash": pl.String,  # "" for the whole catalogue
    "cold": pl.Boolean,  # the target has no interaction in training
    "head": pl.Boolean,  # the target is among the most popular fifth of items (`head_items`)
    "step": pl.Int32,  # of training, at which validation selected the system; -1: nothing was selected
    "beside": pl.String,  # "teacher" if tuned beside its scores (`tune.beside`), else ""
}
RECORD_IDENTITY = ("corpus", "split", "protocol", "system", "teacher", "seed", "user")

# Users by the popularity of their target; a target that is neither head nor cold is tail.
PART_OF_USERS: Mapping[str, pl.Expr] = {
    "head": pl.col("head"),
    "tail": ~pl.col("head") & ~pl.col("cold"),
    "cold": pl.col("cold"),
}

EXPECTED_SCHEMA: Schema = {
    "user": pl.Int32,
    "protocol": pl.String,
    "metric": pl.String,  # one of METRICS
    "value": pl.Float64,  # in [0, 1]
    "cold": pl.Boolean,
}
EXPECTED_IDENTITY = ("protocol", "metric", "user")


@dataclass(frozen=True)
class RecordKey:
    """What all rows of one system under one protocol have in common."""

    corpus: str
    split: str
    protocol: str
    system: str
    teacher: str = ""
    seed: int = 0
    step: int = -1
    beside: str = ""
    candidate_hash: str = ""


def record_table(
    key: RecordKey,
    *,
    users: Int[np.ndarray, "U"],
    targets: Int[np.ndarray, "U"],
    ranks: Float[np.ndarray, "U"],
    ties: Int[np.ndarray, "U"],
    candidates: Int[np.ndarray, "U"] | int,
    cold: Bool[np.ndarray, "U"],
    head: Bool[np.ndarray, "U"],
) -> pl.DataFrame:
    """The rank records of one system under one protocol.

    Args:
      key: the columns that are the same in every row.
      users: user indices.
      targets: target items.
      ranks: mean-tie ranks; infinity is a miss.
      ties: other items tied with the target.
      candidates: number of ranked items, the same for all users or one per user.
      cold: whether the target has no training interaction.
      head: whether the target is one of `metrics.head_items`.

    Raises:
      UserError: an unknown system, an impossible rank, a duplicate user or a cold head target.
    """
    columns = {
        "user": np.asarray(users, np.int32),
        "target": np.asarray(targets, np.int32),
        "rank": np.asarray(ranks, np.float64),
        "ties": np.asarray(ties, np.int32),
        "candidates": np.broadcast_to(np.asarray(candidates, np.int32), (len(users),)),
        "cold": np.asarray(cold, bool),
        "head": np.asarray(head, bool),
    }
    shared = [pl.lit(value).alias(name) for name, value in asdict(key).items()]
    table = pl.DataFrame(columns).with_columns(shared)
    return _checked_records(ordered(table, RECORD_SCHEMA), where=f"records of {key.system}")


def expected_table(
    protocol: str,
    *,
    users: Int[np.ndarray, "U"],
    values: Mapping[str, Float[np.ndarray, "U"]],
    cold: Bool[np.ndarray, "U"],
) -> pl.DataFrame:
    """Expected metric values per user (`metrics.expected_metrics`), one row per metric."""
    wide = pl.DataFrame({"user": users, "cold": np.asarray(cold, bool), **values})
    table = wide.unpivot(index=["user", "cold"], variable_name="metric", value_name="value")
    table = table.with_columns(pl.lit(protocol).alias("protocol"))
    return _checked_expected(ordered(table, EXPECTED_SCHEMA), where="expected values")


def write_records(path: Path, records: pl.DataFrame) -> None:
    """Check and write rank records as parquet, completely or not at all."""
    write_parquet(path, _checked_records(records, where=str(path)))


def read_records(path: Path) -> pl.DataFrame:
    """Read rank records.

    Raises:
      UserError: the file is missing or broken, a column is missing or of another type, or
        a value is impossible; names the file and the column.
    """
    return _checked_records(read_parquet(path), where=str(path))


def write_expected(path: Path, expected: pl.DataFrame) -> None:
    """Check and write expected values as parquet, completely or not at all."""
    write_parquet(path, _checked_expected(expected, where=str(path)))


def read_expected(path: Path) -> pl.DataFrame:
    """Read expected values; errors as in `read_records`."""
    return _checked_expected(read_parquet(path), where=str(path))


def metric_values(records: pl.DataFrame) -> pl.DataFrame:
    """The records with an additional column for each metric of `METRICS`."""
    values = metrics_of_ranks(records["rank"].to_numpy())
    return records.with_columns(pl.Series(name, column) for name, column in values.items())


def wide_expected(expected: pl.DataFrame) -> pl.DataFrame:
    """Expected values with one row per user and protocol, one column per metric."""
    return expected.pivot(on="metric", index=["protocol", "user", "cold"], values="value")


def summarise(values: pl.DataFrame, by: Sequence[str], *, seed: int = 0) -> pl.DataFrame:
    """Mean and 95% bootstrap interval over users, for every metric in every group.

    Args:
      values: one row per user with a column per metric, from `metric_values` or
        `wide_expected`.
      by: the columns that define a group.
      seed: seed of the bootstrap.

    Returns:
      Columns `by`, metric, value, ci_low, ci_high, users.
    """
    rows = []
    # Sorted, so that the order of the rows in a file cannot change an interval.
    groups = values.sort(*by, "user").partition_by(by, maintain_order=True)
    for group, intervals in zip(groups, _group_intervals(groups, seed), strict=True):
        shared = {name: group[name][0] for name in by} | {"users": len(group)}
        for metric, one in zip(METRICS, intervals, strict=True):
            measured = {"value": one.value, "ci_low": one.low, "ci_high": one.high}
            rows.append(shared | {"metric": metric} | measured)
    columns = [*by, "metric", "value", "ci_low", "ci_high", "users"]
    return pl.DataFrame(rows, infer_schema_length=None).select(columns) if rows else pl.DataFrame()


def _group_intervals(groups: Sequence[pl.DataFrame], seed: int) -> list[list[Interval]]:
    """The intervals of each group's metrics. Groups of one size share their draws, which are made once where they are few."""
    found: list[list[Interval]] = [[] for _ in groups]
    sizes = [len(group) for group in groups]
    for size in dict.fromkeys(sizes):
        same = [place for place, its in enumerate(sizes) if its == size]
        together = max(1, min(_GROUPS_AT_ONCE, _ROWS_AT_ONCE // size))
        for start in range(0, len(same), together):
            places = same[start : start + together]
            columns = [groups[place].select(METRICS).to_numpy() for place in places]
            intervals = bootstrap_intervals(np.concatenate(columns, axis=1), seed=seed)
            for number, place in enumerate(places):
                found[place] = intervals[number * len(METRICS) : (number + 1) * len(METRICS)]
    return found


def _checked_records(table: pl.DataFrame, *, where: str) -> pl.DataFrame:
    table = check_schema(table, RECORD_SCHEMA, where=where)
    known = [name for name in table["system"].unique() if is_system(name)]
    expected = f"one of {list(SYSTEMS)}, or hybrid(A+B) of them"
    refuse(table, "system", ~pl.col("system").is_in(known), where, expected)
    refuse(table, "rank", ~(pl.col("rank") >= 1) | pl.col("rank").is_nan(), where, "a rank >= 1")
    refuse(table, "ties", pl.col("ties") < 0, where, "0 or more")
    refuse(table, "step", pl.col("step") < -1, where, "-1 or more")
    cold_head = pl.col("head") & pl.col("cold")
    refuse(table, "head", cold_head, where, "false where 'cold' is true")
    # A mask over the rows would need several times the table's own memory.
    once = table.group_by(RECORD_IDENTITY[:-1]).agg(pl.col("user").n_unique() == pl.len())["user"]
    if not once.all():
        twice = pl.struct(RECORD_IDENTITY).is_duplicated()
        refuse(table, "user", twice, where, f"one row for each of {list(RECORD_IDENTITY)}")
    return table


def _checked_expected(table: pl.DataFrame, *, where: str) -> pl.DataFrame:
    table = check_schema(table, EXPECTED_SCHEMA, where=where)
    refuse(table, "metric", ~pl.col("metric").is_in(METRICS), where, f"one of {list(METRICS)}")
    inside = pl.col("value").is_between(-1e-9, 1 + 1e-6)  # sums of probabilities, rounded
    refuse(table, "value", ~inside, where, "a value from 0 to 1")
    twice = pl.struct(EXPECTED_IDENTITY).is_duplicated()
    refuse(table, "user", twice, where, f"one row for each of {list(EXPECTED_IDENTITY)}")
    return table
