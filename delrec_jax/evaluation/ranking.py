"""Ranks of targets, computed on device, over the whole catalogue or over given candidates.

One rule for every system: a rank is 1-based and a tie gets the mean of the ranks it covers, `greater + 1 + ties / 2`,
where two scores tie only if they are exactly equal. A score of -inf is the lowest: what a system cannot score ties at the
bottom. NaN and +inf mean a broken model: inside jit the rank becomes NaN, which `rank_users` refuses.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def _mean_tie_rank(
    scores: Array, target_score: Array, *, ranked: Array | bool, broken: Array
) -> tuple[Array, Array]:
    """Rank and ties of `target_score` [B] among the `ranked` positions of `scores` [B, N]."""
    greater = jnp.sum((scores > target_score[:, None]) & ranked, axis=1)
    ties = jnp.sum((scores == target_score[:, None]) & ranked, axis=1) - 1  # not itself
    rank = greater.astype(jnp.float32) + 1 + ties.astype(jnp.float32) / 2
    return jnp.where(broken, jnp.nan, rank), ties


def _has_broken_score(scores: Array) -> Array:
    return jnp.any(jnp.isnan(scores) | jnp.isposinf(scores), axis=1)


@jax.jit
def rank_full(
    scores: Float[Array, "B I"],
    targets: Int[Array, "B"],
    seen: Bool[Array, "B I"] | None = None,
) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
    """Rank of each target over the whole catalogue.

    Args:
      scores: one score per item, higher is better.
      targets: item index of each row's target.
      seen: items left out of the ranking; the target itself never is.

    Returns:
      Mean-tie rank (NaN where a score is NaN or +inf, or the target is not an item) and the
      number of other ranked items that tie with the target.
    """
    rows, num_items = scores.shape
    chex.assert_shape(targets, (rows,))
    if seen is not None:
        chex.assert_shape(seen, (rows, num_items))
    is_target = jnp.arange(num_items) == targets[:, None]
    target_score = jnp.take_along_axis(scores, jnp.clip(targets, 0)[:, None], axis=1)[:, 0]
    unknown = (targets < 0) | (targets >= num_items)
    return _mean_tie_rank(
        scores,
        target_score,
        ranked=True if seen is None else ~seen | is_target,
        broken=_has_broken_score(scores) | unknown,
    )


@jax.jit
def rank_unseen(
    scores: Float[Array, "B I"], targets: Int[Array, "B"], histories: Int[Array, "B L"]
) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
    """`rank_full` without the items of the histories: ranks among all items, then subtracts the few seen ones.

    A mask [B, I] of the seen items would cost more than the ranking.

    Args:
      scores: one score per item, higher is better.
      targets: item index of each row's target; it is ranked even if it is in the history.
      histories: items to leave out, each at most once per row, padded with -1 anywhere.
    """
    chex.assert_shape(histories, (len(scores), None))
    rank, ties = rank_full(scores, targets)
    target_score = jnp.take_along_axis(scores, jnp.clip(targets, 0)[:, None], axis=1)  # [B, 1]
    seen_scores = jnp.take_along_axis(scores, jnp.clip(histories, 0), axis=1)  # [B, L]
    left_out = (histories >= 0) & (histories != targets[:, None])
    greater = jnp.sum((seen_scores > target_score) & left_out, axis=1)
    tied = jnp.sum((seen_scores == target_score) & left_out, axis=1)
    return rank - greater - tied.astype(jnp.float32) / 2, ties - tied


@jax.jit
def rank_candidates(
    scores: Float[Array, "B C"], candidates: Int[Array, "B C"], targets: Int[Array, "B"]
) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
    """Rank of each target among its own candidates.

    Args:
      scores: one score per candidate, higher is better.
      candidates: distinct item indices; -1 pads shorter rows and is not ranked.
      targets: item index of each row's target.

    Returns:
      Mean-tie rank (infinity where the target is not a candidate, NaN where a score is NaN
      or +inf) and the number of other candidates that tie with the target (0 for a miss).
    """
    chex.assert_shape((scores, targets), (candidates.shape, (len(candidates),)))
    filled = candidates >= 0
    is_target = filled & (candidates == targets[:, None])
    found = is_target.any(axis=1)
    place = jnp.argmax(is_target, axis=1)[:, None]
    rank, ties = _mean_tie_rank(
        scores,
        jnp.take_along_axis(scores, place, axis=1)[:, 0],
        ranked=filled,
        broken=_has_broken_score(jnp.where(filled, scores, 0)),
    )
    missed = ~found & ~jnp.isnan(rank)
    return jnp.where(missed, jnp.inf, rank), jnp.where(found, ties, 0)


@partial(jax.jit, static_argnames="num_items")
def seen_items(histories: Int[Array, "B L"], *, num_items: int) -> Bool[Array, "B I"]:
    """Which items occur in each history (-1 is padding)."""
    rows = jnp.arange(len(histories))[:, None]
    # -1 would count from the end, so it is moved past the end, where "drop" ignores it.
    places = jnp.where(histories < 0, num_items, histories)
    empty = jnp.zeros((len(histories), num_items), bool)
    return empty.at[rows, places].set(True, mode="drop")


@jax.jit
def gather_candidates(
    scores: Float[Array, "B I"], candidates: Int[Array, "B C"]
) -> Float[Array, "B C"]:
    """Picks the scores of the candidates from those of the catalogue; -inf at padding (-1)."""
    chex.assert_shape(candidates, (len(scores), None))
    picked = jnp.take_along_axis(scores, jnp.clip(candidates, 0), axis=1)
    return jnp.where(candidates < 0, -jnp.inf, picked)
