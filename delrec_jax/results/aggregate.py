"""Aggregates over users and seeds: all that `results/` says of a system.

Two lists: per seed, each metric's mean and standard deviation over users; and over seeds, the mean of the seeds' means, their
sample standard deviation, the 95 % bootstrap interval over users of each user's mean over seeds, and that over users and
seeds together (`low_seeds`, `high_seeds`) of systems with several seeds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from delrec_jax.evaluation.metrics import (
    METRICS,
    Interval,
    bootstrap_intervals,
    bootstrap_intervals_over_seeds,
)
from delrec_jax.evaluation.records import PART_OF_USERS
from delrec_jax.results.sources import Key, SystemRecords

FEWEST = 10
"""Groups of fewer users get no row: their mean would come close to telling single users' ranks."""

DECIMALS = 6

SEED = 0
"""Seed of all resampling in `results/`."""


def groups(users: pl.DataFrame) -> dict[str, np.ndarray]:
    """Which users [U] belong to each group: all, head, tail, and where some targets are cold, cold and warm."""
    exprs = {"all": pl.lit(True), **PART_OF_USERS, "warm": ~pl.col("cold")}
    found = {
        name: users.with_columns(expr.alias("inside"))["inside"].to_numpy()
        for name, expr in exprs.items()
    }
    if not found["cold"].any():
        del found["cold"], found["warm"]
    return {name: inside for name, inside in found.items() if inside.any()}


def aggregates(
    cells: Mapping[Key, SystemRecords],
    *,
    only: str = "",
    of: Mapping[str, np.ndarray] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """`by_seed`, `systems`, and `left_out`: the groups that are too small.

    Args:
      cells: of one corpus and split, all with the same users.
      only: the group of users that is wanted; "" for every one.
      of: groups by name, each as which users [U] belong to it; None for those of `groups`.
    """
    found: dict[str, list[dict[str, Any]]] = {"by_seed": [], "systems": [], "left_out": []}
    for protocol in dict.fromkeys(key.protocol for key in cells):
        own = {key: cell for key, cell in cells.items() if key.protocol == protocol}
        values = {key: cell.values for key, cell in own.items()}
        parts = groups(next(iter(own.values())).users) if of is None else of
        for group, inside in parts.items():
            if only not in ("", group):
                continue
            users, name = int(inside.sum()), {"protocol": protocol, "group": group}
            if users < FEWEST:
                found["left_out"].append({**name, "users": users})
                continue
            inside_values = {key: value[inside] for key, value in values.items()}
            for key, value in inside_values.items():
                row = {**name, **_system(key), "seed": key.seed, "users": users}
                found["by_seed"].append(row | _by_seed(own[key], value))
            found["systems"] += [
                {**name, **row, "users": users} for row in _systems(own, inside_values)
            ]
    return found


def _system(key: Key) -> dict[str, str]:
    return {"system": key.system, "teacher": key.teacher}


def _by_seed(cell: SystemRecords, values: np.ndarray) -> dict[str, Any]:
    told = {name: cell.run[name] for name in _told(cell)}
    means, spreads = values.mean(axis=0), values.std(axis=0, ddof=1)
    columns = zip(METRICS, means, spreads, strict=True)
    return told | {name: {"mean": _short(m), "sd": _short(s)} for name, m, s in columns}


def _told(cell: SystemRecords) -> list[str]:
    """What the records say of the system beside its name: the selected step, and what it was tuned beside."""
    known = {"step": -1, "beside": ""}
    return [name for name, nothing in known.items() if cell.run.get(name, nothing) != nothing]


def _systems(
    cells: Mapping[Key, SystemRecords], values: Mapping[Key, np.ndarray]
) -> list[dict[str, Any]]:
    """One row per system and teacher; all systems share the bootstrap's draws."""
    keys: dict[tuple[str, str], list[Key]] = {}
    for key in values:
        keys.setdefault(_name(key), []).append(key)
    by_user = [np.mean([values[key] for key in own], axis=0) for own in keys.values()]
    intervals = bootstrap_intervals(np.concatenate(by_user, axis=1), seed=SEED)
    with_seeds = _over_seeds(keys, values)
    rows = []
    for place, own in enumerate(keys.values()):
        seeds = [key.seed for key in own if key.seed is not None]
        row: dict[str, Any] = {**_system(own[0]), "seeds": seeds}
        for name in _told(cells[own[0]]):
            row[name] = [cells[key].run[name] for key in own]
        means = np.array([values[key].mean(axis=0) for key in own])  # [S, M]
        for column, metric in enumerate(METRICS):
            one = intervals[place * len(METRICS) + column]
            spread = float(means[:, column].std(ddof=1)) if len(own) > 1 else None
            row[metric] = {
                "mean": _short(one.value),
                "sd_seeds": None if spread is None else _short(spread),
                "low": _short(one.low),
                "high": _short(one.high),
            }
            if both := with_seeds.get(_name(own[0])):
                row[metric]["low_seeds"] = _short(both[column].low)
                row[metric]["high_seeds"] = _short(both[column].high)
        rows.append(row)
    return rows


def _over_seeds(
    keys: Mapping[tuple[str, str], list[Key]], values: Mapping[Key, np.ndarray]
) -> dict[tuple[str, str], list[Interval]]:
    """Intervals over users and seeds of the systems that have several seeds; equally many share one bootstrap."""
    found: dict[tuple[str, str], list[Interval]] = {}
    for count in sorted({len(own) for own in keys.values()} - {1}):
        names = [name for name, own in keys.items() if len(own) == count]
        stacked = [
            np.stack([values[key] for key in keys[name]]) for name in names
        ]  # each [S, U, M]
        all_intervals = bootstrap_intervals_over_seeds(np.concatenate(stacked, axis=2), seed=SEED)
        for place, name in enumerate(names):
            start = place * len(METRICS)
            found[name] = all_intervals[start : start + len(METRICS)]
    return found


def _name(key: Key) -> tuple[str, str]:
    return key.system, key.teacher


def _short(value: float) -> float:
    return round(float(value), DECIMALS)
