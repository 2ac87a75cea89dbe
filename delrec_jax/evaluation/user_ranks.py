"""Ranks every user's target, batch by batch, under as many protocols as one set of scores can serve.

NaN and +inf in the scores, and targets that are not in the catalogue, are refused here (`ranking` has the rule of ranks).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.distributed import on_host
from delrec_jax.errors import UserError
from delrec_jax.evaluation.ranking import gather_candidates, rank_candidates, rank_full, rank_unseen
from delrec_jax.padding import PAD_ITEM

ScoreFn = Callable[[Int[np.ndarray, "B"]], Array | np.ndarray]
RankFn = Callable[[Array, Int[np.ndarray, "B"]], tuple[Array, Array]]
Histories = Int[np.ndarray, "U L"] | Callable[[Int[np.ndarray, "B"]], Int[np.ndarray, "B L"]]


@dataclass(frozen=True)
class Ranks:
    """Ranks of all users under one protocol."""

    rank: Float[np.ndarray, "U"]  # float64, >= 1; infinity: the target is not a candidate
    ties: Int[np.ndarray, "U"]  # other items with exactly the target's score


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


def fixed_batches(num_users: int, batch_size: int) -> Iterator[Int[np.ndarray, "B"]]:
    """User indices in batches of one size; the last batch is filled up with the last user, so that one shape is compiled."""
    for start in range(0, num_users, batch_size):
        users = np.arange(start, start + batch_size, dtype=np.int32)
        yield np.minimum(users, num_users - 1)


def _broken(scores: Float[np.ndarray, "B N"]) -> Bool[np.ndarray, "B"]:
    bad: np.ndarray = (np.isnan(scores) | np.isposinf(scores)).any(axis=1)
    return bad


def _refuse_broken(bad: np.ndarray, *, what: str) -> None:
    if bad.any():
        raise UserError(
            f"{what}: scores of {bad.sum()} of {bad.size} users cannot be ranked (NaN, +inf or "
            f"a target outside the catalogue), first at row {np.flatnonzero(bad)[0]}; the model "
            "has probably diverged: lower its learning rate, or start it again from a sound "
            "checkpoint"
        )


def _to_device(scores: Array | np.ndarray) -> Array:
    """Scores as a device array without making or breaking a tie.

    JAX would round 64-bit scores to 32 bits, which can make different scores equal: such rows are replaced by their dense
    ranks, with the same order and ties. A row that cannot be ranked stays one: it is refused with all others.
    """
    if isinstance(scores, np.ndarray) and scores.dtype.itemsize > 4:
        from scipy import stats  # imported late: half a second

        broken = _broken(scores)
        scores = stats.rankdata(scores, method="dense", axis=1).astype(np.float32)
        scores[broken] = np.nan
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
    found = BatchRanks(rankers)
    for places in fixed_batches(len(order), batch_size):
        found.add(_to_device(score_fn(order[places])), order[places])
    return found.joined(order, what=what)


class BatchRanks:
    """Ranks of a system's users under several protocols, batch by batch."""

    def __init__(self, rankers: Mapping[str, RankFn]):
        """Ranks nobody yet; the arguments of all methods are those of `rank_users`."""
        self._rankers = rankers
        self._parts: dict[str, list[tuple[Array, Array]]] = {protocol: [] for protocol in rankers}

    def add(self, scores: Array, users: Int[np.ndarray, "B"]) -> list[tuple[Array, Array]]:
        """Ranks a batch, and returns its ranks and ties by protocol, still on the device."""
        found = [ranker(scores, users) for ranker in self._rankers.values()]
        for own, one in zip(self._parts.values(), found, strict=True):
            own.append(one)
        return found

    def joined(self, order: Int[np.ndarray, "R"], *, what: str) -> dict[str, Ranks]:
        """Returns what `rank_users` does, when all batches of this order were added."""
        return {
            protocol: _join(ranked, order, what=f"{what}, {protocol}")
            for protocol, ranked in self._parts.items()
        }


def _join(parts: list[tuple[Array, Array]], order: np.ndarray, *, what: str) -> Ranks:
    """Joins batches on the host, in the order of the rows, without the padding of the last batch."""
    ascending = np.argsort(order)
    rank = np.concatenate([on_host(rank) for rank, _ in parts])[ascending].astype(np.float64)
    ties = np.concatenate([on_host(ties) for _, ties in parts])[ascending].astype(np.int32)
    _refuse_broken(np.isnan(rank), what=what)
    return Ranks(rank=rank, ties=ties)
