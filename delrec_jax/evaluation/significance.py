"""Paired tests between systems over the same users.

The difference between two systems' means gets a percentile bootstrap interval over users and
a two-sided sign-flip permutation test (under the null a user's two values can be swapped);
p-values of one family of comparisons are corrected by Holm's step-down method. A system that
was trained with several seeds enters with each user's mean over them: the user is the unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float

from delrec_jax import prng
from delrec_jax.errors import UserError
from delrec_jax.evaluation import distinct_values
from delrec_jax.evaluation.metrics import METRICS, bootstrap_interval
from delrec_jax.evaluation.records import PART_OF_USERS, metric_values
from delrec_jax.evaluation.resampling_blocks import blocks
from delrec_jax.evaluation.systems import BASELINES, SYSTEMS

CONTROLS = tuple(name for name in SYSTEMS if name.startswith("lm_") and name not in BASELINES)
"""The language model's other rows: DELRec is tested against each."""

UNTUNED_CONTROLS = (
    *("lm_no_prompt", "lm_supervised", "lm_readout"),
    *("lm_random_prompt", "lm_shuffled_prompt"),
)


@dataclass(frozen=True)
class Comparison:
    """One paired comparison; `difference` is system minus reference."""

    corpus: str
    split: str
    protocol: str  # "full"; "full@head" if only these users were compared
    metric: str
    teacher: str  # of both systems; "" if no teacher is involved
    system: str
    reference: str
    step: int  # at which the system was selected; -1: at none, or not at one for all seeds
    reference_step: int
    users: int
    seeds: int  # number over which each user's values were averaged
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    p_adjusted: float  # Holm over the family; the plain p-value outside a family


def sign_flip_p_value(
    differences: Float[np.ndarray, "U"], *, seed: int, resamples: int = 10_000
) -> float:
    """Two-sided p-value of the mean of paired differences under random signs.

    Args:
      differences: value of the system minus value of the reference, per user.
      seed: seed of the random stream "sign-flip".
      resamples: number of random sign patterns.

    Returns:
      (1 + patterns at least as extreme) / (1 + resamples), never 0.
    """
    moved = np.asarray(differences, np.float64)
    moved = moved[moved != 0]  # a zero keeps its value under either sign
    if not moved.size:
        return 1.0
    generator = prng.generator(seed, "sign-flip")
    # Differences are sums of few distinct values: equal totals may differ by rounding.
    threshold = abs(moved.sum()) * (1 - 1e-9) - 1e-12
    totals = _random_sign_totals(moved, generator=generator, resamples=resamples)
    return (1 + int((np.abs(totals) >= threshold).sum())) / (1 + resamples)


def _random_sign_totals(
    moved: Float[np.ndarray, " U"], *, generator: np.random.Generator, resamples: int
) -> Float[np.ndarray, " R"]:
    """Sums of these values, each with a random sign."""
    if counted := distinct_values.counted(np.abs(moved)):
        return distinct_values.random_sign_totals(
            *counted, generator=generator, resamples=resamples
        )
    if moved.size > distinct_values.MANY:  # sums of so many signed values are normal
        return generator.normal(0.0, np.sqrt((moved**2).sum()), resamples)
    totals = np.empty(resamples)
    for block in blocks(resamples, moved.size):
        signs = generator.integers(0, 2, (block.stop - block.start, moved.size)) * 2.0 - 1.0
        totals[block] = np.einsum("ru,u->r", signs, moved)
    return totals


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    in_order: list[float] = adjusted.tolist()
    return in_order


def standardized_difference(differences: Float[np.ndarray, "U"]) -> float | None:
    """Effect size of paired differences: their mean in units of their sample standard deviation over users (d_z).

    Returns:
      0 if there is no difference for any user; None if all users have one and the same, or if there is only one user: then
      no spread exists that it could be measured by.
    """
    differences = np.asarray(differences, np.float64)
    if not differences.any():
        return 0.0
    if np.ptp(differences) < 1e-12:
        return None
    return float(differences.mean() / differences.std(ddof=1))


def compare(
    records: pl.DataFrame,
    system: str,
    reference: str,
    metric: str,
    *,
    protocol: str = "full",
    part: str = "all",
    seed: int = 0,
    resamples: int = 10_000,
) -> Comparison:
    """Paired comparison of two systems over the same users, targets and candidates.

    Args:
      records: rank records of one corpus, split and teacher; with several seeds each user's
        metric is first averaged over them.
      system: the system whose advantage is tested.
      reference: what it is compared with.
      metric: one of `METRICS`.
      protocol: the protocol of both.
      part: "all" users, or those of one part of `records.PART_OF_USERS`.
      seed: seed of the bootstrap and of the permutations.
      resamples: number of sign patterns of the test.

    Raises:
      UserError: an unknown metric or part, a system without records, several runs mixed in one
        system, or two systems that differ in users, targets, candidates or seeds.
    """
    if metric not in METRICS:
        raise UserError(f"metric: unknown '{metric}'; choose one of {', '.join(METRICS)}")
    chosen = _part_of(records, part)
    ours = _rows_of(chosen, system, protocol=protocol, part=part)
    theirs = _rows_of(chosen, reference, protocol=protocol, part=part)
    _check_pairing(ours, theirs, protocol=protocol)
    difference = _mean_over_seeds(ours, metric) - _mean_over_seeds(theirs, metric)
    interval = bootstrap_interval(difference, seed=seed)
    p_value = sign_flip_p_value(difference, seed=seed, resamples=resamples)
    return Comparison(
        corpus=ours["corpus"][0],
        split=ours["split"][0],
        protocol=protocol if part == "all" else f"{protocol}@{part}",
        metric=metric,
        teacher=ours["teacher"][0] or theirs["teacher"][0],
        system=system,
        reference=reference,
        step=_only_step(ours),
        reference_step=_only_step(theirs),
        users=len(difference),
        seeds=ours["seed"].n_unique(),
        difference=interval.value,
        ci_low=interval.low,
        ci_high=interval.high,
        p_value=p_value,
        p_adjusted=p_value,
    )


def standard_pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs that are tested in every run, among the given systems.

    Every system against the teacher, DELRec against every control, and the distilled prompt
    against no prompt, a random one and that of a shuffled teacher (beating no prompt alone is
    no evidence of distillation). The oracle is a bound and is not tested. A run has either
    `lm_no_prompt` or `lm_supervised`.
    """
    pairs = [(name, "teacher") for name in systems if name != "teacher"]
    pairs += [("delrec", control) for control in CONTROLS]
    pairs += [("lm_distilled_prompt", control) for control in UNTUNED_CONTROLS]
    there = set(systems) - {"oracle"}
    return [(a, b) for a, b in pairs if a in there and b in there]


def compare_family(
    records: pl.DataFrame,
    pairs: Sequence[tuple[str, str]],
    metric: str,
    *,
    protocol: str = "full",
    seed: int = 0,
    resamples: int = 10_000,
) -> list[Comparison]:
    """`compare` for each pair, with p-values corrected by Holm over all of them."""
    family = [
        compare(
            records,
            system,
            reference,
            metric,
            protocol=protocol,
            seed=seed,
            resamples=resamples,
        )
        for system, reference in pairs
    ]
    return corrected(family)


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with the p-values that Holm's correction over all of them gives."""
    adjusted = holm([one.p_value for one in family])
    return [replace(one, p_adjusted=p) for one, p in zip(family, adjusted, strict=True)]


def _part_of(records: pl.DataFrame, part: str) -> pl.DataFrame:
    if part == "all":
        return records
    if part not in PART_OF_USERS:
        raise UserError(f"part: unknown '{part}'; choose one of all, {', '.join(PART_OF_USERS)}")
    return records.filter(PART_OF_USERS[part])


def _rows_of(records: pl.DataFrame, system: str, *, protocol: str, part: str) -> pl.DataFrame:
    """One system's rows under one protocol, sorted by seed and user, with the same users for every seed."""
    rows = records.filter(system=system, protocol=protocol)
    if rows.is_empty():
        there = ", ".join(records["system"].unique(maintain_order=True))
        raise UserError(
            f"records: system '{system}' has no rows under protocol '{protocol}', part "
            f"'{part}' (systems found: {there}); evaluate it first"
        )
    runs = rows.select("corpus", "split", "teacher").n_unique()
    if runs > 1 or rows.select("seed", "user").is_duplicated().any():
        raise UserError(
            f"records: system '{system}' under '{protocol}' mixes several runs (teacher, corpus "
            "or split); filter the records to one"
        )
    seeds, users = rows["seed"].n_unique(), rows["user"].n_unique()
    if len(rows) != seeds * users or rows.select("user", "target").n_unique() != users:
        raise UserError(
            f"records: system '{system}' under '{protocol}': its {seeds} seeds do not all have "
            "the same users and targets, so they cannot be averaged; evaluate them on one split"
        )
    return rows.sort("seed", "user")


def _check_pairing(ours: pl.DataFrame, theirs: pl.DataFrame, *, protocol: str) -> None:
    """Refuse two systems that were not measured on the same users, targets, candidates and seeds."""
    same_seeds = ours["seed"].unique().sort().equals(theirs["seed"].unique().sort())
    columns = ["user", "corpus", "split", "target", "candidate_hash"]
    if ours["teacher"][0] and theirs["teacher"][0]:  # popularity may have none
        columns.append("teacher")
    differing = [] if same_seeds else ["seed"]
    differing += [column for column in columns if not ours[column].equals(theirs[column])]
    if differing:
        raise UserError(
            f"records, protocol '{protocol}': column '{differing[0]}' differs between "
            f"'{ours['system'][0]}' and '{theirs['system'][0]}', so they cannot be paired; "
            "evaluate both in one run"
        )


def _only_step(rows: pl.DataFrame) -> int:
    steps = rows["step"].unique().to_list()
    return int(steps[0]) if len(steps) == 1 else -1


def _mean_over_seeds(rows: pl.DataFrame, metric: str) -> Float[np.ndarray, "U"]:
    """Each user's mean metric, in the order of users; the rows are sorted by seed and user."""
    values = metric_values(rows)[metric].to_numpy()
    means: np.ndarray = values.reshape(rows["seed"].n_unique(), -1).mean(axis=0)  # [U]
    return means
