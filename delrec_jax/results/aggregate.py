"""Aggregates over users and seeds: all that `results/` says of a system.

Two lists: per seed, each metric's mean and standard deviation over users; and over seeds, the mean of the seeds' means, their
sample standard deviation, and the 95 % bootstrap interval over users of each user's mean over seeds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from delrec_jax.evaluation.metrics import METRICS, bootstrap_intervals
from delrec_jax.evaluation.records import PART_OF_USERS
from delrec_jax.results.sources import Cell, Key

FEWEST = 10
"""Groups of fewer users get no row: their mean would come close to telling single users' ranks."""

DIGITS = 6


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


def aggregates(cells: Mapping[Key, Cell], *, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """`by_seed`, `systems`, and `left_out`: the groups that are too small.

    Args:
        cells: of one corpus and split, all with the same users.
        seed: seed of the bootstrap.
    """
    found: dict[str, list[dict[str, Any]]] = {"by_seed": [], "systems": [], "left_out": []}
    for protocol in dict.fromkeys(key.protocol for key in cells):
        own = {key: cell for key, cell in cells.items() if key.protocol == protocol}
        values = {key: cell.values for key, cell in own.items()}
        for group, inside in groups(next(iter(own.values())).users).items():
            users, name = int(inside.sum()), {"protocol": protocol, "group": group}
            if users < FEWEST:
                found["left_out"].append({**name, "users": users})
                continue
            inside_values = {key: value[inside] for key, value in values.items()}
            for key, value in inside_values.items():
                row = {**name, **_system(key), "seed": key.seed, "users": users}
                found["by_seed"].append(row | _by_seed(own[key], value))
            found["systems"] += [
                {**name, **row, "users": users} for row in _systems(own, inside_values, seed=seed)
            ]
    return found


def _system(key: Key) -> dict[str, str]:
    return {"system": key.system, "teacher": key.teacher}


def _by_seed(cell: Cell, values: np.ndarray) -> dict[str, Any]:
    told = {name: cell.run[name] for name in _told(cell)}
    means, spreads = values.mean(axis=0), values.std(axis=0, ddof=1)
    columns = zip(METRICS, means, spreads, strict=True)
    return told | {name: {"mean": _short(m), "sd": _short(s)} for name, m, s in columns}


def _told(cell: Cell) -> list[str]:
    """What the records say of the system beside its name: the selected step, and what it was tuned beside."""
    known = {"step": -1, "beside": ""}
    return [name for name, nothing in known.items() if cell.run.get(name, nothing) != nothing]


def _systems(
    cells: Mapping[Key, Cell], values: Mapping[Key, np.ndarray], *, seed: int
) -> list[dict[str, Any]]:
    """One row per system and teacher; all systems share the bootstrap's draws."""
    keys: dict[tuple[str, str], list[Key]] = {}
    for key in values:
        keys.setdefault((key.system, key.teacher), []).append(key)
    by_user = [np.mean([values[key] for key in own], axis=0) for own in keys.values()]
    intervals = bootstrap_intervals(np.concatenate(by_user, axis=1), seed=seed)
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
        rows.append(row)
    return rows


def _short(value: float) -> float:
    return round(float(value), DIGITS)
