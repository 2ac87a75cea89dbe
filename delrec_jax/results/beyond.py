"""Aggregates over seeds of what a reviewer asks beyond accuracy: the measures of recommended lists, and costs.

Rows per system, teacher and label, of any number of finished workdirs; no row per user. All of it is read from the files beside
the rank records. Where an evaluation did not record a measure, it counts for none of the means, and where none did, there is
none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from delrec_jax.analysis.beyond_blocks import is_shared
from delrec_jax.errors import UserError
from delrec_jax.evaluation.beyond_accuracy import (
    MEASURES,
    TARGETS,
    agreement_of_seeds,
    read_rows,
)
from delrec_jax.evaluation.systems import system_order
from delrec_jax.evaluation.top_lists import items_of, read_lists

COST = "cost.json"
COSTS = (
    "trained_parameters",
    "train_seconds",
    "seconds_per_example",
    "seconds_per_user",
    "memory_gib",
)
"""Measures of cost, in the order of tables: trained numbers; wall seconds of all training runs of the system, evaluations
included; seconds per training example and per ranked user, without what was compiled; peak GiB of evaluation (of the fullest
device, or of the process where the backend tells none). The language model's own pre-training is not part of them."""

SIGNIFICANT = 6

_Group = tuple[str, str, str]


def beyond_rows(sources: Sequence[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Rows of all systems, for `summary.json`.

    Args:
      sources: a label ("" for none) and a folder of rank records per workdir (`records`, or `baseline`); those of one label
        differ by seed or teacher.

    Returns:
      Rows {system, teacher, label, seeds, users} with {mean, sd} for each of `MEASURES` and `COSTS` that was recorded, the
      sample standard deviation over seeds being None for a single one; and `jaccard_of_seeds`, the agreement of runs that
      differ by seed alone, where there are several. `teacher` is "" for systems that are the same for all. The row
      `targets` describes what the users took.

    Raises:
      UserError: a file is broken, or two folders with one label hold the same system, teacher and seed, or differ in their
        test users.
    """
    found: dict[_Group, dict[int, dict[str, Any]]] = {}
    lists: dict[_Group, dict[int, np.ndarray]] = {}
    users: dict[str, np.ndarray] = {}
    for label, folder in sources:
        for row in _rows(folder):
            shared = is_shared(row["system"])
            group = row["system"], "" if shared else row["teacher"], label
            seeds = found.setdefault(group, {})
            if row["seed"] in seeds and not shared:
                raise UserError(
                    f"{folder}: '{row['system']}' (teacher '{row['teacher']}', seed {row['seed']}) is in another folder too; "
                    "give one of the two a label of its own"
                )
            seeds.setdefault(row["seed"], row)
        for group, seed, table in _lists(folder, label):
            asked = table["user"].to_numpy()
            if not np.array_equal(users.setdefault(label, asked), asked):
                raise UserError(
                    f"{folder}: its test users are not those of the other folders of label '{label}'; give them another label"
                )
            lists.setdefault(group, {})[seed] = items_of(table)
    return [
        _aggregate(group, found[group], lists.get(group, {})) for group in sorted(found, key=_order)
    ]


def read_costs(folder: Path) -> dict[tuple[str, str, int], dict[str, Any]] | None:
    """The costs of each system, teacher and seed of a folder of records; None if that evaluation did not record them.

    Returns:
      `COSTS` of each; None for what could not be timed, such as the seconds per user of a system that was ranked in a single
      batch, in which it was compiled, or the seconds per example of one that was not trained.

    Raises:
      UserError: the file is broken.
    """
    path = folder / COST
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs = {run["folder"]: run for run in content["training"]}
        memory = content["memory"]
        peak = memory["process_gib"] if memory["device_gib"] is None else memory["device_gib"]
        return {
            (one["system"], one["teacher"], one["seed"]): _costs(one, runs) | {"memory_gib": peak}
            for one in content["systems"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a file of costs ({error!r}); delete it, or evaluate the workdir again into an empty records folder"
        ) from error


def _costs(one: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    own = [runs[name] for name in one["trained"]]
    walls = [run["seconds"] for run in own if run["seconds"] is not None]
    examples = sum(run["timed_examples"] for run in own)
    return {
        "trained_parameters": sum(run["parameters"] for run in own),
        "train_seconds": sum(walls) if len(walls) == len(own) else None,
        "seconds_per_example": sum(run["timed_seconds"] for run in own) / examples
        if examples
        else None,
        "seconds_per_user": one["seconds"] / one["timed_users"] if one["timed_users"] else None,
    }


def _rows(folder: Path) -> list[dict[str, Any]]:
    """One row per system, teacher and seed of a folder, with its measures and its costs."""
    measured = {
        (row["system"], row["teacher"], row["seed"]): row for row in read_rows(folder) or []
    }
    costs = read_costs(folder) or {}
    return [
        dict(zip(("system", "teacher", "seed"), key, strict=True))
        | measured.get(key, {})
        | costs.get(key, {})
        for key in dict.fromkeys([*measured, *costs])
    ]


def _lists(folder: Path, label: str) -> Iterator[tuple[_Group, int, pl.DataFrame]]:
    """The lists of all trained systems of a folder, by user."""
    found = read_lists(folder)
    if found is None:
        return
    of_run = ("system", "teacher", "seed")
    for key, table in found[0].partition_by(of_run, as_dict=True).items():
        system, teacher, seed = key
        if not is_shared(system):
            yield (system, teacher, label), seed, table.sort("user")


def _aggregate(
    group: _Group, seeds: Mapping[int, Mapping[str, Any]], lists: Mapping[int, np.ndarray]
) -> dict[str, Any]:
    rows = [seeds[seed] for seed in sorted(seeds)]
    row: dict[str, Any] = dict(zip(("system", "teacher", "label"), group, strict=True))
    row["seeds"] = [] if is_shared(group[0]) else sorted(seeds)
    users = [one["users"] for one in rows if "users" in one]
    row["users"] = max(users, default=None)
    for name in (*MEASURES, *COSTS):
        values = [one[name] for one in rows if one.get(name) is not None]
        if values:
            # What is the same under every seed was not measured several times.
            alike = is_shared(group[0]) and np.ptp(values) < 1e-12
            spread = None if len(values) == 1 or alike else float(np.std(values, ddof=1))
            row[name] = {"mean": _short(np.mean(values)), "sd": _short(spread)}
    together = agreement_of_seeds([lists[seed] for seed in sorted(lists)])
    if together is not None:
        row["jaccard_of_seeds"] = _short(together)
    return row


def _order(group: _Group) -> tuple[str, bool, str, tuple[int, ...]]:
    """Labels in alphabetical order; in each the systems by teacher, in the order of tables, and last the targets."""
    system, teacher, label = group
    return label, system == TARGETS, teacher, () if system == TARGETS else system_order(system)


def _short(value: Any) -> float | None:
    return None if value is None else float(f"{value:.{SIGNIFICANT}g}")
