"""Ranking metrics per user, their expectation under known probabilities, intervals, and the head.

A rank is 1-based; tied items share the mean of the ranks they cover, so a rank may end in
.5; a target that is not among the candidates has rank infinity (a miss). With rank r:

    HR@k   = 1 if r <= k else 0
    NDCG@k = 1 / log2(r + 1) if r <= k else 0      (one relevant item: the ideal DCG is 1)
    MRR    = 1 / r
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from delrec_jax import prng
from delrec_jax.errors import UserError
from delrec_jax.evaluation import distinct_values
from delrec_jax.evaluation.resampling_blocks import blocks

METRICS = ("HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10", "MRR")

# What a rank is worth; with a cut, `NAME@k`, only ranks up to k are worth it.
_GAINS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "HR": np.ones_like,
    "NDCG": lambda ranks: 1.0 / np.log2(ranks + 1.0),
    "MRR": lambda ranks: 1.0 / ranks,
}


@dataclass(frozen=True)
class Interval:
    """A mean over users with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def _gain(metric: str, ranks: np.ndarray) -> np.ndarray:
    """The metric of each rank, by the formulas at the top of this file."""
    name, _, cut = metric.partition("@")
    gains = _GAINS[name](ranks)
    return np.where(ranks <= int(cut), gains, 0.0) if cut else gains


def metrics_of_ranks(ranks: Float[np.ndarray, "U"]) -> dict[str, Float[np.ndarray, "U"]]:
    """The six metrics of each user.

    Args:
      ranks: mean-tie ranks, >= 1; infinity is a miss.

    Returns:
      Metric name (in the order of `METRICS`) -> value in [0, 1] per user.

    Raises:
      UserError: a rank is NaN or below 1.
    """
    ranks = np.asarray(ranks, np.float64)
    bad = np.flatnonzero(~(ranks >= 1))  # comparisons with NaN are false, so NaN is bad too
    if bad.size:
        raise UserError(
            f"ranks: row {bad[0]} is {ranks[bad[0]]}, expected a number >= 1 (infinity for a "
            "miss); rank with delrec_jax.evaluation.ranking"
        )
    return {metric: _gain(metric, ranks) for metric in METRICS}


def head_items(train_counts: Int[np.ndarray, "I"], share: float = 0.2) -> Bool[np.ndarray, "I"]:
    """The head of the catalogue: the most popular `share` of all items, counting those without interactions.

    The head is never larger than that share: if the border falls among items with the same
    count, none of them is in the head. Items without interactions never are.

    Args:
      train_counts: training interactions per item.
      share: share of all items, in (0, 1].

    Returns:
      Whether each item is in the head; all False if even the most popular ones are too many.

    Raises:
      UserError: the share is outside (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"head items: share is {share:g}, expected more than 0 and at most 1")
    counts = np.asarray(train_counts)
    places = int(share * counts.size + 1e-9)  # 0.29 * 100 is a little less than 29
    left_out = np.sort(counts)[: counts.size - places]
    return counts > max(0, left_out[-1] if left_out.size else 0)


def expected_metrics(
    probabilities: Float[np.ndarray, "U C"],
) -> dict[str, Float[np.ndarray, "U"]]:
    """The expected metrics of the best possible ranking, the one by the true probabilities.

    Items are ranked by probability (ties get their mean rank, as for every system), and
    E[metric] = sum over items of p(item) * gain(rank of item).

    Args:
      probabilities: p(next item) per user over the items or candidates. A row may sum to
        less than 1: the rest is a miss.

    Returns:
      Metric name -> expected value per user.

    Raises:
      UserError: a probability is negative or not finite, or a row sums to more than 1.
    """
    table = np.asarray(probabilities, np.float64)
    sums = table.sum(axis=1)
    wrong = ~np.isfinite(sums) | (table < 0).any(axis=1) | (sums > 1 + 1e-6)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"probabilities: row {row} sums to {sums[row]:g} with minimum {table[row].min():g}; "
            "every row needs finite values >= 0 with a sum of at most 1"
        )
    from scipy import stats  # imported late: half a second

    ranks = stats.rankdata(-table, method="average", axis=1)
    return {metric: (table * _gain(metric, ranks)).sum(axis=1) for metric in METRICS}


def _resampled_means(
    values: np.ndarray, *, generator: np.random.Generator, resamples: int
) -> np.ndarray:
    """Means [resamples, M] over users drawn with replacement, with the same draws for all columns.

    Draws become counts per user, so that one product gives all columns (about twice as
    fast as `scipy.stats.bootstrap`, with the same numbers). einsum is used instead of BLAS
    because its order of summation does not depend on the number of threads.
    """
    users = len(values)
    if users > distinct_values.MANY:
        return distinct_values.means_of_many(values, generator=generator, resamples=resamples)
    means = np.empty((resamples, values.shape[1]))
    for block in blocks(resamples, users):
        rows = block.stop - block.start
        drawn = generator.integers(0, users, (rows, users))
        drawn += np.arange(rows)[:, None] * users
        counts = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        means[block] = np.einsum("ru,um->rm", counts.astype(np.float64), values) / users
    return means


def bootstrap_intervals(
    values: Float[np.ndarray, "U M"],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> list[Interval]:
    """Means and percentile bootstrap intervals over users, for several columns at once.

    Columns share their draws, unless there are many users (`distinct_values`).

    Args:
      values: one row per user, one column per quantity; finite.
      seed: seed of the random stream "bootstrap".
      resamples: number of bootstrap samples.
      level: coverage, in (0, 1).

    Returns:
      One `Interval` per column.

    Raises:
      UserError: there is no user, or a value is not finite.
    """
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise UserError(
            f"bootstrap: {len(values)} users, all values finite: {np.isfinite(values).all()}; "
            "an interval needs at least one user and finite values"
        )
    generator = prng.generator(seed, "bootstrap")
    # Columns that need not be drawn together have fewer distinct values apart.
    apart = values.shape[1] if len(values) > distinct_values.MANY else 1
    means = [
        _resampled_means(columns, generator=generator, resamples=resamples)
        for columns in np.split(values, apart, axis=1)
    ]
    return _percentiles(values.mean(axis=0), np.concatenate(means, axis=1), level)


def bootstrap_intervals_over_seeds(
    values: Float[np.ndarray, "S U M"],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> list[Interval]:
    """Means and percentile bootstrap intervals over users and training seeds together, for several columns at once.

    Each resample draws users with replacement, and seeds with replacement, independently of one another: every seed was
    measured on the same users. Draws of S seeds
    show on average only (S - 1) / S of the variance between seeds, and nothing that none of the S runs did.

    Args:
      values: one value per training seed, user and quantity; finite.
      seed: seed of the random streams "bootstrap" and "bootstrap-seeds".
      resamples: number of bootstrap samples.
      level: coverage, in (0, 1).

    Returns:
      One `Interval` per column.

    Raises:
      UserError: there are fewer than two training seeds or no user, or a value is not finite.
    """
    values = np.asarray(values, np.float64)
    seeds, users, columns = values.shape
    if seeds < 2 or not users or not np.isfinite(values).all():
        raise UserError(
            f"bootstrap over seeds: {seeds} training seeds, {users} users, all values finite: "
            f"{np.isfinite(values).all()}; an interval needs at least two seeds, one user and finite values"
        )
    by_user = values.transpose(1, 0, 2).reshape(users, seeds * columns)
    generator = prng.generator(seed, "bootstrap")
    means = _resampled_means(by_user, generator=generator, resamples=resamples)  # [R, S M]
    drawn = prng.generator(seed, "bootstrap-seeds").multinomial(
        seeds, np.full(seeds, 1 / seeds), resamples
    )  # [R, S]: how often
    both = np.einsum("rs,rsm->rm", drawn / seeds, means.reshape(resamples, seeds, columns))
    return _percentiles(values.mean(axis=(0, 1)), both, level)


def _percentiles(values: np.ndarray, means: np.ndarray, level: float) -> list[Interval]:
    """Percentile intervals of resampled means [R, M] around the means [M] of the sample."""
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    columns = zip(values, low, high, strict=True)
    # If all users are alike, the resampled means differ from the mean only by rounding.
    return [Interval(float(v), float(min(a, v)), float(max(b, v))) for v, a, b in columns]


def bootstrap_interval(
    values: Float[np.ndarray, "U"],
    *,
    seed: int,
    resamples: int = 2000,
) -> Interval:
    """`bootstrap_intervals` for one quantity per user."""
    column = np.asarray(values, np.float64)[:, None]
    return bootstrap_intervals(column, seed=seed, resamples=resamples)[0]
