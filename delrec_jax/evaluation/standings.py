"""Where all systems of a run stand: one mean with its interval per system, over users and whatever seeds there are."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import METRICS, bootstrap_interval
from delrec_jax.evaluation.records import metric_values
from delrec_jax.evaluation.significance import Comparison, compare, corrected
from delrec_jax.evaluation.systems import BASELINES, SIMPLE_BASELINES, system_order


@dataclass(frozen=True)
class Standing:
    """One system under one protocol; with several seeds each user's metric is first averaged over them."""

    system: str
    teacher: str  # "" for a system that is the same for every teacher
    value: float  # mean over users
    ci_low: float  # of the 95 % bootstrap interval over users
    ci_high: float
    users: int
    seeds: int
    step: int  # at which the system was selected; -1: at none, or not at one for all seeds
    beside: str  # as in the records


def standings(
    records: pl.DataFrame, metric: str, *, protocol: str, seed: int = 0
) -> list[Standing]:
    """Every system under one protocol, by teacher and then in the order of tables; for one seed, the values of `metrics.json`.

    Args:
      records: rank records of one corpus and split; an oracle's realized ranks are left out.
      metric: one of `METRICS`.
      protocol: such as "full".
      seed: seed of the bootstrap.

    Raises:
      UserError: an unknown metric, or a protocol without records.
    """
    if metric not in METRICS:
        raise UserError(f"metric: unknown '{metric}'; choose one of {', '.join(METRICS)}")
    ranked = records.filter(protocol=protocol).filter(pl.col("system") != "oracle")
    if ranked.is_empty():
        there = ", ".join(records["protocol"].unique().sort())
        raise UserError(f"records: no rows under protocol '{protocol}' (protocols found: {there})")
    of_all = pl.col("system").is_in(BASELINES)
    values = metric_values(ranked).with_columns(
        pl.when(of_all).then(pl.lit("")).otherwise("teacher").alias("teacher")
    )
    found = [
        _standing(own, metric, seed=seed)
        for own in values.partition_by("system", "teacher", maintain_order=True)
    ]
    return sorted(found, key=lambda one: (one.teacher, system_order(one.system)))


def best_baseline(found: Sequence[Standing]) -> str | None:
    """The simple baseline with the highest value, or None if none was ranked.

    It is chosen by the test users themselves, which can only make it a harder one to beat.
    """
    simple = [one for one in found if one.system in SIMPLE_BASELINES]
    return max(simple, key=lambda one: one.value).system if simple else None


def compare_with_baseline(
    records: pl.DataFrame,
    system: str,
    baseline: str,
    metric: str,
    *,
    protocol: str = "full",
    seed: int = 0,
    resamples: int = 10_000,
) -> list[Comparison]:
    """A system against a baseline, once for each of its teachers; p-values are corrected by Holm over them.

    Args:
      records: rank records of one corpus and split. The baseline counts as the same under every teacher and seed: one set of
        its records is enough.
      system: what is tested, with all seeds that it has.
      baseline: one of `BASELINES`.
      metric: one of `METRICS`.
      protocol: the protocol of both.
      seed: seed of the bootstraps and the permutations.
      resamples: sign patterns per test.

    Raises:
      UserError: as `compare`.
    """
    ranked = records.filter(protocol=protocol)
    theirs = ranked.filter(system=baseline).unique("user", maintain_order=True)
    family = []
    for ours in ranked.filter(system=system).sort("teacher").partition_by("teacher"):
        copies = [
            theirs.with_columns(pl.lit(one, pl.Int64).alias("seed"), pl.lit("").alias("teacher"))
            for one in ours["seed"].unique().sort()
        ]
        both = pl.concat([ours, *copies])
        pair = (system, baseline, metric)
        family.append(compare(both, *pair, protocol=protocol, seed=seed, resamples=resamples))
    return corrected(family)


def _standing(own: pl.DataFrame, metric: str, *, seed: int) -> Standing:
    by_user = own.group_by("user").agg(pl.col(metric).mean()).sort("user")
    interval = bootstrap_interval(by_user[metric].to_numpy(), seed=seed)
    steps = own["step"].unique().to_list()
    return Standing(
        system=own["system"][0],
        teacher=own["teacher"][0],
        value=interval.value,
        ci_low=interval.low,
        ci_high=interval.high,
        users=len(by_user),
        seeds=own["seed"].n_unique(),
        step=int(steps[0]) if len(steps) == 1 else -1,
        beside=own["beside"][0],
    )
