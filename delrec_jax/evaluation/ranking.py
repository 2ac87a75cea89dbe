"""Ranks of targets, computed on device, over the whole catalogue or over given candidates.

One rule for every system: a rank is 1-based and a tie gets the mean of the ranks it covers, `greater + 1 + ties / 2`,
where two scores tie only if they are exactly equal. A score of -inf is the lowest: what a system cannot score ties at the
bottom. NaN and +inf mean a broken model: inside jit the rank becomes NaN, which `rank_users` (or `check_finite`) refuses.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.distributed import on_host
from delrec_jax.errors import UserError
from delrec_jax.padding import PAD_ITEM

ScoreFn = Callable[[Int[np.ndarray, "B"]], Array | np.ndarray]
RankFn = Callable[[Array, Int[np.ndarray, "B"]], tuple[Array, Array]]
Histories = Int[np.ndarray, "U L"] | Callable[[Int[np.ndarray, "B"]], Int[np.ndarray, "B L"]]


@dataclass(frozen=True)
class Ranks:
    """Ranks of all users under one protocol."""

    rank: Float[np.ndarray, "U"]  # float64, >= 1; infinity: the target is not a candidate
    ties: Int[np.ndarray, "U"]  # other items with exactly the target's score


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


def full_ranker(targets: Int[np.ndarray, "U"], histories: Histories | None = None) -> RankFn:
    """A ranker for `rank_users` over the whole catalogue, with the items of the history left out.

    Args:
        targets: target item of each user.
        histories: ALL items that each user has seen before the target, padded with -1 (a
            cut history would let seen items back in): an array [U, L], or a function of user rows
            [B] to [B, L]; None leaves nothing out.
    """

    def rank(scores: Array, users: Int[np.ndarray, "B"]) -> tuple[Array, Array]:
        ranked: tuple[Array, Array]
        if histories is None:
            ranked = rank_full(scores, targets[users])
        else:
            seen = histories(users) if callable(histories) else histories[users]
            ranked = rank_unseen(scores, targets[users], _each_once(seen))
        return ranked

    return rank


def _each_once(histories: Int[np.ndarray, "B L"]) -> Int[np.ndarray, "B L"]:
    """The same items, each once per row, in another order; repeats become padding."""
    ordered = np.sort(histories, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = PAD_ITEM
    return ordered


def candidate_ranker(
    targets: Int[np.ndarray, "U"], candidates: Int[np.ndarray, "U C"], *, full_scores: bool = False
) -> RankFn:
    """A ranker for `rank_users` over each user's stored candidates.

    Args:
        targets: target item of each user.
        candidates: candidate items of each user, padded with -1.
        full_scores: the system scores the whole catalogue [B, I] (the candidates' scores
            are picked from it); otherwise it scores the candidates, [B, C], in their order.
    """

    def rank(scores: Array, users: Int[np.ndarray, "B"]) -> tuple[Array, Array]:
        chosen = candidates[users]
        if full_scores:
            scores = gather_candidates(scores, chosen)
        ranked: tuple[Array, Array] = rank_candidates(scores, chosen, targets[users])
        return ranked

    return rank


def fixed_batches(
    num_users: int, batch_size: int
) -> Iterator[tuple[Int[np.ndarray, "B"], Bool[np.ndarray, "B"]]]:
    """User indices in batches of one size, and which of them count.

    The last batch is filled up with the last user, so that only one shape is compiled.
    """
    for start in range(0, num_users, batch_size):
        users = np.arange(start, start + batch_size, dtype=np.int32)
        yield np.minimum(users, num_users - 1), users < num_users


def check_finite(scores: Float[np.ndarray, "B N"], *, what: str) -> None:
    """Refuse scores that cannot be ranked (on the host; -inf is allowed).

    Raises:
        UserError: a score is NaN or +inf; names `what`, the row and the remedy.
    """
    scores = np.asarray(scores)
    bad = (np.isnan(scores) | np.isposinf(scores)).any(axis=1)
    _refuse_broken(bad, what=what)


def _refuse_broken(bad: np.ndarray, *, what: str) -> None:
    if bad.any():
        raise UserError(
            f"{what}: scores of {bad.sum()} of {bad.size} users cannot be ranked (NaN, +inf or "
            f"a target outside the catalogue), first at row {np.flatnonzero(bad)[0]}; the model "
            "has probably diverged: lower its learning rate, or start it again from a sound "
            "checkpoint"
        )


def _to_device(scores: Array | np.ndarray, *, what: str) -> Array:
    """Scores as a device array without making or breaking a tie.

    JAX would round 64-bit scores to 32 bits, which can make different scores equal: such rows are replaced by their dense
    ranks, with the same order and ties.
    """
    if isinstance(scores, np.ndarray) and scores.dtype.itemsize > 4:
        from scipy import stats  # imported late: half a second

        check_finite(scores, what=what)
        scores = stats.rankdata(scores, method="dense", axis=1).astype(np.int32)
    return jnp.asarray(scores)


def rank_users(
    score_fn: ScoreFn,
    rankers: Mapping[str, RankFn],
    *,
    num_users: int,
    batch_size: int,
    what: str = "system",
    order: Int[np.ndarray, "U"] | None = None,
) -> dict[str, Ranks]:
    """Score every user once, in batches of one shape, and rank under every protocol.

    Args:
        score_fn: user rows [B] -> scores [B, I] or [B, C], whatever the rankers expect, perhaps split over
            a mesh: then ranks are computed there, and gathered from all processes in the end.
        rankers: protocol -> ranker, from `full_ranker` or `candidate_ranker`.
        num_users: rows 0..num_users-1 are there to be ranked.
        batch_size: users per call; the last batch is padded, and its padding dropped.
        what: name of the system in error messages.
        order: the user rows that are ranked, each once, in the order in which they are scored (such as by
            length of history, so that batches need little padding); None is all rows, ascending.

    Returns:
        Protocol -> ranks of these users, in ascending order of their rows whatever `order` is.

    Raises:
        UserError: there is no user, or scores cannot be ranked.
    """
    order = np.arange(num_users) if order is None else order
    if not len(order):
        raise UserError(f"{what}: 0 users to rank; the evaluated part of the split is empty")
    parts: dict[str, list[tuple[Array, Array]]] = {protocol: [] for protocol in rankers}
    for places, _ in fixed_batches(len(order), batch_size):
        users = order[places]
        scores = _to_device(score_fn(users), what=what)
        for protocol, ranker in rankers.items():
            parts[protocol].append(ranker(scores, users))
    return {
        protocol: _collect(ranked, order, what=f"{what}, {protocol}")
        for protocol, ranked in parts.items()
    }


def _collect(parts: list[tuple[Array, Array]], order: np.ndarray, *, what: str) -> Ranks:
    """Joins batches on the host, in the order of the rows, without the padding of the last batch."""
    ascending = np.argsort(order)
    rank = np.concatenate([on_host(rank) for rank, _ in parts])[ascending].astype(np.float64)
    ties = np.concatenate([on_host(ties) for _, ties in parts])[ascending].astype(np.int32)
    _refuse_broken(np.isnan(rank), what=what)
    return Ranks(rank=rank, ties=ties)
