"""Resampling many users by their distinct values: the same distributions, in a time that does not grow with the users.

A metric that is cut at rank ten has a dozen values, and differences of two such metrics a hundred. Draws of users with
replacement are draws of how often each value occurs (a multinomial), and random signs are draws of how many of each value are
positive (a binomial). The draws differ from those of user by user, their distribution does not: few users are therefore
resampled as they always were, so that stored results stay as they are.

Reciprocal ranks in a large catalogue hardly repeat. Means of so many of them are normal, to within a hundredth of the width of
their interval, and are drawn as such.
"""

import numpy as np
from jaxtyping import Float, Int

from delrec_jax.evaluation.resampling_blocks import blocks

MANY = 50_000
"""Users from which on values are counted first: a million took minutes for each interval."""

_FEW = 2_000  # distinct rows, whose draws take less than a second
_SHARE = 10  # as many users as distinct values, or more; a binomial takes the time of some signs


def counted(values: Float[np.ndarray, "U ..."]) -> tuple[np.ndarray, np.ndarray] | None:
    """The distinct values (rows, if they have columns) and how often each occurs; None where counting would not help.

    It helps where there are many users and few values: reciprocal ranks in a large catalogue hardly repeat.
    """
    if len(values) <= MANY:
        return None
    distinct, counts = np.unique(values, axis=0, return_counts=True)
    return (distinct, counts) if len(distinct) * _SHARE <= len(values) else None


def means_of_many(
    values: Float[np.ndarray, "U M"], *, generator: np.random.Generator, resamples: int
) -> Float[np.ndarray, "R M"]:
    """Means over many users drawn with replacement, with the same draws for all columns.

    Args:
      values: one row per user.
      generator: the source of randomness.
      resamples: number R of draws.
    """
    found = counted(values)
    if found is not None and len(found[0]) <= _FEW:
        return resampled_means(*found, generator=generator, resamples=resamples)
    covariance = np.atleast_2d(np.cov(values, rowvar=False, ddof=0)) / len(values)
    drawn: np.ndarray = generator.multivariate_normal(
        values.mean(axis=0), covariance, resamples, method="eigh"
    )
    return drawn


def resampled_means(
    rows: Float[np.ndarray, "V M"],
    counts: Int[np.ndarray, " V"],
    *,
    generator: np.random.Generator,
    resamples: int,
) -> Float[np.ndarray, "R M"]:
    """Means over users drawn with replacement, with the same draws for all columns.

    Args:
      rows: the distinct rows of the users' values.
      counts: the users that have each.
      generator: the source of randomness.
      resamples: number R of draws.
    """
    users = int(counts.sum())
    shares = counts / users
    means = np.empty((resamples, rows.shape[1]))
    for block in blocks(resamples, len(rows)):
        drawn = generator.multinomial(users, shares, block.stop - block.start)  # [block, distinct]
        means[block] = np.einsum("ru,um->rm", drawn.astype(np.float64), rows) / users
    return means


def random_sign_totals(
    sizes: Float[np.ndarray, " V"],
    counts: Int[np.ndarray, " V"],
    *,
    generator: np.random.Generator,
    resamples: int,
) -> Float[np.ndarray, " R"]:
    """Sums of all users' values, each with a random sign.

    Args:
      sizes: the distinct values without their signs.
      counts: the users that have each.
      generator: the source of randomness.
      resamples: number R of sign patterns.
    """
    totals = np.empty(resamples)
    for block in blocks(resamples, len(sizes)):
        positive = generator.binomial(counts, 0.5, (block.stop - block.start, len(counts)))
        totals[block] = np.einsum("ru,u->r", 2.0 * positive - counts, sizes)
    return totals
