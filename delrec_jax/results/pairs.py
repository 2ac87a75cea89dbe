"""Paired comparisons of systems: over users, after averaging over the seeds that both have, and seed by seed.

A row has, beside the difference and its tests, two effect sizes: `d_z`, the mean difference in units of its standard deviation
over users, and `percent`, the difference in percent of the reference's mean. Where they are not defined (no spread, a
reference of zero), they are None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import bootstrap_intervals_over_seeds
from delrec_jax.evaluation.records import PART_OF_USERS, metric_values
from delrec_jax.evaluation.significance import compare, holm, standardized_difference
from delrec_jax.results import names
from delrec_jax.results.aggregate import DECIMALS, FEWEST, SEED
from delrec_jax.results.sources import Key, SystemRecords, same_ranks

_OURS, _THEIRS = "system", "reference"


@dataclass(frozen=True)
class Pair:
    """Two systems under one protocol, each as (system, teacher)."""

    protocol: str
    ours: tuple[str, str]
    theirs: tuple[str, str]

    def __str__(self) -> str:
        """How messages name it."""
        return " and ".join(
            f"'{'@'.join(one).removesuffix('@')}'" for one in (self.ours, self.theirs)
        )


def parse(text: str) -> tuple[str, str]:
    """The two patterns of `A,B`; each is `SYSTEM` or `SYSTEM@TEACHER`, and `*` stands for anything.

    Raises:
      UserError: it is not two names.
    """
    found = [part.strip() for part in text.split(",")]
    if len(found) != 2 or not all(found):
        raise UserError(
            f"--compare={text}: give two systems as A,B, for example --compare=ease,teacher"
        )
    return found[0], found[1]


def expand(
    cells: Mapping[Key, SystemRecords], patterns: tuple[str, str], protocol: str
) -> list[Pair]:
    """The pairs that two patterns name: of one teacher, unless both patterns name theirs.

    The oracle is a bound and is not tested.

    Raises:
      UserError: no pair has these names.
    """
    there = {
        (key.system, key.teacher)
        for key in cells
        if key.protocol == protocol and names.parts(key.system) != ("oracle",)
    }
    across = all("@" in pattern for pattern in patterns)
    found = [
        Pair(protocol, ours, theirs)
        for ours in names.chosen(there, patterns[0])
        for theirs in names.chosen(there, patterns[1])
        if ours != theirs and (across or ours[1] == theirs[1] or "" in (ours[1], theirs[1]))
    ]
    if not found:
        known = ", ".join("@".join(one).removesuffix("@") for one in names.chosen(there, "*"))
        raise UserError(
            f"--compare={','.join(patterns)}: no such pair under protocol '{protocol}' (systems found: {known or 'none'})"
        )
    return found


def comparisons(
    cells: Mapping[Key, SystemRecords],
    patterns: Sequence[tuple[str, str]],
    *,
    protocols: Sequence[str] = ("full",),
    metrics: Sequence[str] = ("NDCG@10",),
) -> list[dict[str, Any]]:
    """`tests` of the pairs that patterns name.

    Args:
      cells: of one corpus and split.
      patterns: pairs of systems (`parse`).
      protocols: such as "full", or "full@head" for the users of a group in `records.PART_OF_USERS`.
      metrics: some of `METRICS`.

    Raises:
      UserError: a pair, protocol, group or metric that is not there, a group that is too small, or two systems without a
        common seed.
    """
    pairs = []
    for name in protocols:
        protocol, _, group = name.partition("@")
        found = [pair for one in patterns for pair in expand(cells, one, protocol)]
        pairs += [(pair, group or "all") for pair in dict.fromkeys(found)]
    return tests(cells, pairs, metrics=metrics)


def identical(cells: Mapping[Key, SystemRecords], pair: Pair) -> bool:
    """Whether both systems have the same ranks for every user and seed: then they are one, and nothing is left to test."""
    ours, theirs = (
        {key.seed: cell for key, cell in cells.items() if key[:3] == (pair.protocol, *one)}
        for one in (pair.ours, pair.theirs)
    )
    return ours.keys() == theirs.keys() and all(
        same_ranks(cell, theirs[seed]) for seed, cell in ours.items()
    )


def tests(
    cells: Mapping[Key, SystemRecords],
    pairs: Sequence[tuple[Pair, str]],
    *,
    metrics: Sequence[str] = ("NDCG@10",),
) -> list[dict[str, Any]]:
    """One row per pair and metric; the p-values of all rows are one family for Holm's correction.

    Args:
      cells: of one corpus and split.
      pairs: each with the group of users that it is tested on: "all" or one of `records.PART_OF_USERS`.
      metrics: some of `METRICS`.

    Raises:
      UserError: a group or metric that is not there, a group that is too small, or two systems without a common seed.
    """
    rows = []
    for pair, group in pairs:
        records = _records(cells, pair)
        for metric in metrics:
            rows.append(_compared(pair, records, metric, group=group))
    adjusted = holm([row["p"] for row in rows])
    return [row | {"p_holm": _short(p)} for row, p in zip(rows, adjusted, strict=True)]


def _records(cells: Mapping[Key, SystemRecords], pair: Pair) -> pl.DataFrame:
    """Records of both systems for their common seeds, under names that `compare` can tell apart.

    An untrained system has one result, which is the same for every seed of the other.
    """
    own = [
        {key.seed: cell for key, cell in cells.items() if key[:3] == (pair.protocol, *one)}
        for one in (pair.ours, pair.theirs)
    ]
    seeded = [{seed for seed in found if seed is not None} for found in own if None not in found]
    seeded = seeded or [{0}]
    seeds = sorted(set.intersection(*seeded))
    if not seeds:
        listed = " and ".join(str(sorted(one)) for one in seeded)
        raise UserError(f"{pair}: their seeds {listed} have none in common; run both with one seed")
    tables = []
    for name, found in zip((_OURS, _THEIRS), own, strict=True):
        for seed in seeds:
            cell = found[None] if None in found else found[seed]
            told = [pl.lit(name).alias("system"), pl.lit("").alias("teacher")]
            told.append(pl.lit(seed, pl.Int64).alias("seed"))
            tables.append(cell.records.with_columns(told))
    return pl.concat(tables)


def _compared(pair: Pair, records: pl.DataFrame, metric: str, *, group: str) -> dict[str, Any]:
    one = compare(
        records,
        _OURS,
        _THEIRS,
        metric,
        protocol=pair.protocol,
        part=group,
        seed=SEED,
    )
    if one.users < FEWEST:
        raise UserError(
            f"{pair}: the group '{group}' has {one.users} users, fewer than {FEWEST}; leave it out"
        )
    values = _values(_of_group(records, group), metric)
    difference = values[_OURS] - values[_THEIRS]  # [S, U]
    theirs = float(values[_THEIRS].mean())
    effect = standardized_difference(difference.mean(axis=0))
    row = {
        "protocol": pair.protocol,
        "group": group,
        "metric": metric,
        "system": pair.ours[0],
        "teacher": pair.ours[1],
        "reference": pair.theirs[0],
        "reference_teacher": pair.theirs[1],
        "users": one.users,
        "seeds": sorted(records["seed"].unique().to_list()),
        "difference": _short(one.difference),
        "low": _short(one.ci_low),
        "high": _short(one.ci_high),
        "by_seed": [_short(mean) for mean in difference.mean(axis=1)],
        "d_z": None if effect is None else _short(effect),
        "percent": _short(100 * one.difference / theirs) if theirs else None,
        "p": _short(one.p_value),
    }
    if len(difference) > 1:
        (both,) = bootstrap_intervals_over_seeds(difference[:, :, None], seed=SEED)
        row |= {"low_seeds": _short(both.low), "high_seeds": _short(both.high)}
    return row


def _values(records: pl.DataFrame, metric: str) -> dict[str, np.ndarray]:
    """Each system's metric [S, U], in ascending order of seeds and users."""
    ordered = metric_values(records).sort("seed", "user")
    seeds = ordered["seed"].n_unique()
    return {
        name: ordered.filter(system=name)[metric].to_numpy().reshape(seeds, -1)
        for name in (_OURS, _THEIRS)
    }


def _of_group(records: pl.DataFrame, group: str) -> pl.DataFrame:
    return records if group == "all" else records.filter(PART_OF_USERS[group])


def _short(value: float) -> float:
    return round(float(value), DECIMALS)
