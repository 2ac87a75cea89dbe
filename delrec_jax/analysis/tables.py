"""Result rows from rank records, and `metrics.json`.

A row is one metric of one system on one part of the test users. The names tell the part:
protocol "full@cold" and "full@warm" split "full" by whether the target was seen in training,
"full@head", "full@tail" and "full@cold" by how popular it was there. `step` is the step of training
at which validation selected the system, -1 where nothing was selected; `beside` is "teacher" for a
language model that was tuned beside the teacher's scores.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from delrec_jax.errors import UserError
from delrec_jax.evaluation.records import (
    PART_OF_USERS,
    metric_values,
    summarise,
    wide_expected,
)
from delrec_jax.files import write_text

Row = Mapping[str, Any]

ROW_KEYS = (
    "corpus",
    "split",
    "protocol",
    "system",
    "teacher",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "users",
    "seed",
    "step",
    "beside",
)
_COLD_AND_WARM = {"cold": PART_OF_USERS["cold"], "warm": ~pl.col("cold")}
_GROUP = ("corpus", "split", "protocol", "system", "teacher", "seed", "step", "beside")


def metrics_rows(
    records: pl.DataFrame,
    expected: pl.DataFrame | None = None,
    *,
    seed: int = 0,
    by_popularity: bool = False,
) -> list[dict[str, Any]]:
    """Every metric of every system, with 95 % bootstrap intervals over users.

    Where a protocol has cold targets, its cold and its warm users also get rows of their own.
    The oracle's rows come from the expected values, never from its realized ranks. An oracle
    belongs to one seed: with records of several seeds, call this for each and join the rows.

    Args:
      records: rank records; if `expected` is given, of one corpus, split and seed of the run
        (the oracle's rows take these names from them).
      expected: the oracle's expected values, where the process is known.
      seed: seed of the bootstrap.
      by_popularity: give head and tail users (`records.PART_OF_USERS`) rows of their own
        instead of warm ones. An oracle has no such rows: expected values lack popularity.

    Returns:
      Rows with exactly the keys of `metrics.json`, in its order.

    Raises:
      UserError: there are no records, or it is unclear which run the oracle belongs to.
    """
    if records.is_empty():
        raise UserError("records: no rows; run `delrec evaluate` before the report")
    values = metric_values(records.filter(pl.col("system") != "oracle"))
    parts = PART_OF_USERS if by_popularity else _COLD_AND_WARM
    tables = [_summary(values, parts, seed=seed)]
    if expected is not None:
        known = {name: parts[name] for name in parts if name in _COLD_AND_WARM}
        tables.append(_summary(_oracle_values(records, expected), known, seed=seed))
    return sorted_rows([row for table in tables for row in table.to_dicts()])


def sorted_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows in the order of `metrics.json`, with their keys in the order of `ROW_KEYS`."""
    names = ("corpus", "split", "protocol", "system", "teacher", "seed", "metric")
    ordered = sorted(rows, key=lambda row: tuple(row[name] for name in names))
    return [{key: row[key] for key in ROW_KEYS} for row in ordered]


def write_metrics_json(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows as JSON, one per line, atomically.

    The bytes depend on the rows only, not on their order: equal runs give equal files.

    Raises:
      UserError: a row's keys are not `ROW_KEYS`.
    """
    for number, row in enumerate(rows):
        _check_keys(row, where=f"{path}, row {number}")
    lines = [json.dumps(row, sort_keys=True, allow_nan=False) for row in sorted_rows(rows)]
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def main_values(rows: Sequence[Row], protocol: str) -> dict[str, float]:
    """The values of one protocol by `SYSTEM/METRIC`, as a mean over seeds.

    Where the rows have several teachers, those that have one are by `SYSTEM/TEACHER/METRIC`.
    """
    wanted = [row for row in rows if row["protocol"] == protocol]
    several = len({row["teacher"] for row in wanted} - {""}) > 1
    found: dict[str, list[float]] = {}
    for row in wanted:
        parts = (row["system"], row["teacher"] if several else "", row["metric"])
        found.setdefault("/".join(filter(None, parts)), []).append(row["value"])
    return {name: sum(values) / len(values) for name, values in found.items()}


def read_metrics_json(path: Path) -> list[dict[str, Any]]:
    """Reads rows written by `write_metrics_json`.

    Raises:
      UserError: the file is missing, is not JSON, or a row has wrong keys.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `delrec evaluate` and `delrec report` first")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: not JSON ({error}); delete it and run `delrec report` again"
        ) from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds a {type(rows).__name__}, expected a list of rows")
    for number, row in enumerate(rows):
        _check_keys(row, where=f"{path}, row {number}")
    return rows


def _all_numbers(row: dict[str, Any]) -> bool:
    """Whether what was measured is numbers."""
    return all(isinstance(value, int | float) for key, value in row.items() if key != "run")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl`: {"run": ..., "step": ..., measured values ...}.

    Raises:
      UserError: the file is missing, or a line is not a JSON object with run and step.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such training log; run the stage that writes it first")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise UserError(f"{path}: not text ({error}); delete it and run the stage again") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        known = isinstance(row, dict) and isinstance(row.get("run"), str)
        if not known or type(row.get("step")) is not int or not _all_numbers(row):
            raise UserError(
                f"{path}, line {number}: not a JSON object with 'run', 'step' and numbers ({line[:60]!r}); "
                "remove the line or run the stage again"
            )
        rows.append(row)
    return rows


def _summary(values: pl.DataFrame, parts: Mapping[str, pl.Expr], *, seed: int) -> pl.DataFrame:
    """Means and intervals of all users and of each part; of warm users only if there are cold ones."""
    has_cold = pl.col("cold").any().over("corpus", "split", "protocol")
    found = [values]
    for name, inside in parts.items():
        chosen = inside & has_cold if name == "warm" else inside
        found.append(values.filter(chosen).with_columns(pl.col("protocol") + f"@{name}"))
    return summarise(pl.concat(found), _GROUP, seed=seed)


def _oracle_values(records: pl.DataFrame, expected: pl.DataFrame) -> pl.DataFrame:
    """Expected values in the form of metric values, under the names of the run."""
    runs = records.select("corpus", "split", "seed").unique()
    if len(runs) != 1:
        raise UserError(
            f"expected values: the records mix {len(runs)} runs (corpus, split, seed), so it is "
            "unclear which one the oracle belongs to; report each run separately"
        )
    names = {"system": "oracle", "teacher": "", "step": -1, "beside": ""} | runs.to_dicts()[0]
    shared = [pl.lit(value).alias(name) for name, value in names.items()]
    return wide_expected(expected).with_columns(shared)


def _check_keys(row: Any, *, where: str) -> None:
    keys = set(row) if isinstance(row, Mapping) else set()
    if keys != set(ROW_KEYS):
        differing = sorted(keys ^ set(ROW_KEYS))
        raise UserError(
            f"{where}: keys missing or unknown: {', '.join(differing)}; a row has exactly "
            f"{', '.join(ROW_KEYS)}"
        )


def oracle_value(rows: Sequence[Row], protocol: str, metric: str) -> float | None:
    """Returns the value of the best possible ranking; None where it is not known.

    Args:
      rows: those of `metrics.json`.
      protocol: as in the rows.
      metric: as in the rows.
    """
    wanted = ("oracle", protocol, metric)
    found = (
        row["value"] for row in rows if (row["system"], row["protocol"], row["metric"]) == wanted
    )
    return next(found, None)
