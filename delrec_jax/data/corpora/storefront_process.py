"""The storefront's process: one exact step for many users at once.

A profile z mixes three kernels with weights w_z: a point mass at the continuation of the latest item, one at its drift, and
the popularity. The mixture is renormalized over the open items (not seen, and no new releases before they are out):

    p(i | z, history) = open(i) * sum_b w_zb k_b(i) / sum_b w_zb mass_b,   mass_b = k_b(open)

With P(z | history) from Bayes' rule over the same p, the predictive distribution is
sum_z P(z | history) p(i | z, history): again a single set of three weights, so a step costs O(items) per user, not
O(items * profiles).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32


@dataclasses.dataclass(frozen=True)
class Process:
    """The kernels and their mixtures.

    Attributes:
      popularity: float64 [I], positive, sums to 1.
      continuation: int32 [I], the item that each item continues to.
      drift: int32 [I], the item that each item drifts to.
      cold: bool [I], whether an item is a new release.
      shares: float64 [Z], the prior of the profiles.
      weights: float64 [Z, 3], each profile's weights of continuation, drift and popularity (the last positive).
    """

    popularity: Float64[np.ndarray, "I"]
    continuation: Int32[np.ndarray, "I"]
    drift: Int32[np.ndarray, "I"]
    cold: Bool[np.ndarray, "I"]
    shares: Float64[np.ndarray, "Z"]
    weights: Float64[np.ndarray, "Z 3"]


@dataclasses.dataclass(frozen=True)
class Shoppers:
    """The states of U users.

    Attributes:
      seen: bool [U, I].
      latest: int32 [U], the latest item, -1 before the first.
      posterior: float64 [U, Z], the posterior of the profile given the history.
    """

    seen: Bool[np.ndarray, "U I"]
    latest: Int32[np.ndarray, "U"]
    posterior: Float64[np.ndarray, "U Z"]


def start(process: Process, prior: Float64[np.ndarray, "U Z"]) -> Shoppers:
    """Users before their first item, with a prior over each one's profile."""
    count = len(prior)
    seen = np.zeros((count, len(process.popularity)), bool)
    return Shoppers(seen, np.full(count, -1, np.int32), prior)


def distributions(
    process: Process, shoppers: Shoppers, released: Bool[np.ndarray, "U"]
) -> Float64[np.ndarray, "U I"]:
    """The distribution of the next item, averaged over the posterior of the profiles.

    Args:
      process: The process.
      shoppers: The users' states.
      released: Whether the new releases are out, for each user.

    Returns:
      float64 [U, I]; rows sum to 1.
    """
    is_open = ~shoppers.seen & (released[:, None] | ~process.cold)
    mass = _open_mass(process, shoppers, is_open)
    norms = mass @ process.weights.T  # [U, Z]
    weights = (shoppers.posterior / norms) @ process.weights  # [U, 3]
    result = weights[:, 2:] * process.popularity * is_open
    rows = np.arange(len(result))
    # Two statements: where both kernels point at the same item, both must count.
    result[rows, process.continuation[shoppers.latest]] += weights[:, 0] * mass[:, 0]
    result[rows, process.drift[shoppers.latest]] += weights[:, 1] * mass[:, 1]
    return np.asarray(result)


def advance(process: Process, shoppers: Shoppers, items: Int[np.ndarray, "U"]) -> Shoppers:
    """The states after one more item each, chosen before the new releases are out.

    Args:
      process: The process.
      shoppers: The users' states.
      items: The next item of each user, open to that user; -1 leaves the user unchanged.

    Returns:
      The new state; the given one is not changed.
    """
    moved = items >= 0
    rows, chosen = np.flatnonzero(moved), items[moved]
    latest = shoppers.latest[rows]
    kernels = np.stack(
        [
            (latest >= 0) & (process.continuation[latest] == chosen),
            (latest >= 0) & (process.drift[latest] == chosen),
            process.popularity[chosen],
        ],
        axis=1,
    )
    norms = _open_mass(process, shoppers, ~shoppers.seen & ~process.cold)[rows] @ process.weights.T
    belief = shoppers.posterior[rows] * (kernels @ process.weights.T) / norms
    posterior, seen = shoppers.posterior.copy(), shoppers.seen.copy()
    posterior[rows] = belief / belief.sum(axis=1, keepdims=True)
    seen[rows, chosen] = True
    return Shoppers(seen, np.where(moved, items, shoppers.latest).astype(np.int32), posterior)


def sample_rows(
    process: Process, random: Sequence[np.random.Generator], lengths: Int[np.ndarray, "U"]
) -> list[Int32[np.ndarray, "L"]]:
    """Draws complete histories of the given lengths.

    Args:
      process: The process.
      random: One generator per user; a row depends only on its own generator.
      lengths: Items of each history, at least 1; the new releases are out at the last one.

    Returns:
      One int32 array of items per user, without repeats.
    """
    profile_draw = np.array([generator.random() for generator in random])
    draws = np.zeros((len(random), int(lengths.max())))
    for row, (generator, length) in enumerate(zip(random, lengths, strict=True)):
        draws[row, :length] = generator.random(length)
    # The true profile, as a posterior without doubt, stays in this function: no caller sees it.
    profile = np.searchsorted(np.cumsum(process.shares)[:-1], profile_draw, side="right")
    shoppers = start(process, np.eye(len(process.shares))[profile])
    items = np.full(draws.shape, -1, np.int32)
    for step in range(items.shape[1]):
        chances = distributions(process, shoppers, lengths == step + 1)
        cumulative = np.cumsum(chances, axis=1)
        reached = cumulative <= draws[:, step, None] * cumulative[:, -1:]
        items[:, step] = np.where(lengths > step, reached.sum(axis=1), -1)
        # A user's last item, the only one that may be a new release, has no successor.
        shoppers = advance(process, shoppers, np.where(lengths > step + 1, items[:, step], -1))
    return [row[:length] for row, length in zip(items, lengths, strict=True)]


def _open_mass(
    process: Process, shoppers: Shoppers, is_open: Bool[np.ndarray, "U I"]
) -> Float64[np.ndarray, "U 3"]:
    """The mass of each kernel on open items; continuation and drift need a latest item."""
    rows = np.arange(len(is_open))
    stepping = shoppers.latest >= 0
    return np.stack(
        [
            stepping & is_open[rows, process.continuation[shoppers.latest]],
            stepping & is_open[rows, process.drift[shoppers.latest]],
            is_open @ process.popularity,
        ],
        axis=1,
    )
