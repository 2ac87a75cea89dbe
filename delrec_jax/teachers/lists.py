"""The teacher's lists: what stage 1 distills; `list_files` stores them.

A list holds the teacher's h best items for a history, best first, then random negatives
up to m candidates, with the teacher's scores for all of them (so that the full order can
be distilled and not only its head).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.distributed import on_host
from delrec_jax.errors import UserError
from delrec_jax.padding import PAD_ITEM
from delrec_jax.random_items import distinct_items, row_keys, taken_codes
from delrec_jax.teachers.best_items import best_items, scores_of
from delrec_jax.teachers.protocol import PlacedScores, ScoreFn

_STREAM = "teacher-negatives"

Making = Callable[[Int[np.ndarray, "B"]], Int[np.ndarray, "B L"]]


@dataclass(frozen=True)
class RowsOf:
    """Rows that are made as they are asked for: for many users, all of them as one array may not fit in memory.

    Attributes:
      count: N, their number.
      make: row numbers [B] -> int32 [B, L]; L may be another one for other rows.
    """

    count: int
    make: Making

    def __len__(self) -> int:
        return self.count

    def __call__(self, rows: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B L"]:
        """Makes some rows."""
        return self.make(rows)


class MadeRows(Protocol):
    """`RowsOf`, or what can be asked in the same way."""

    def __len__(self) -> int:
        """Returns the number of rows."""
        ...

    def __call__(self, rows: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B L"]:
        """Makes some rows."""
        ...


Histories = Int[np.ndarray, "N L"] | MadeRows
"""An array, or what makes its rows."""


def some_rows(given: Histories, rows: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B L"]:
    """Returns these rows."""
    found: np.ndarray = given(rows) if callable(given) else given[rows]
    return found


Pick = Callable[[Int[np.ndarray, "b n"]], Float[np.ndarray, "b n"]]
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class ListSettings:
    """What a list contains.

    Attributes:
      top_h: h, number of the teacher's best items, in order.
      num_candidates: m, number of items in total; m - h are random negatives.
      seed: seed of the random negatives.
    """

    top_h: int = 10
    num_candidates: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.top_h < 1:
            raise UserError(f"distill.top_h: {self.top_h} must be at least 1")
        if self.top_h > self.num_candidates:
            raise UserError(
                f"distill.top_h={self.top_h} is larger than "
                f"distill.num_candidates={self.num_candidates}; lower the first or raise the second"
            )


@dataclass(frozen=True)
class TeacherLists:
    """Lists for N histories.

    Attributes:
      items: int32 [N, m], the top h first and in order, then the negatives.
      scores: float32 [N, m], the teacher's scores of `items`.
    """

    items: Int[np.ndarray, "N m"]
    scores: Float[np.ndarray, "N m"]


def top_lists(
    score_fn: ScoreFn | PlacedScores,
    histories: Histories,
    *,
    top_h: int,
    allowed: Bool[np.ndarray, " I"],
    seen: Histories | None = None,
    batch_size: int = 256,
) -> tuple[Int[np.ndarray, "N h"], Float[np.ndarray, "N h"]]:
    """The teacher's best items for each history, best first.

    Args:
      score_fn: the teacher's `scores`, compiled here, once; or its scores over a mesh, whose users are ranked where they
        are, by all processes together.
      histories: [N, L], left-padded with -1; may be shorter than what the user has seen.
      top_h: h, items per list.
      allowed: False excludes an item from all lists (the teacher never saw it).
      seen: items to leave out [N, S], one row per history, padded with -1 anywhere; None leaves none out.
      batch_size: rows per compiled call (more where they must divide over a mesh); the last batch is padded, and its
        padding dropped.

    Returns:
      `(items, scores)`, int32 and float32. Items with equal scores are in index order.

    Raises:
      UserError: a row has fewer than h allowed unseen items, or scores are not finite.
    """
    items = np.zeros((len(histories), top_h), np.int32)
    scores = np.zeros(items.shape, np.float32)
    for rows, best, *_ in _ranked_batches(
        score_fn, histories, top_h=top_h, allowed=allowed, seen=seen, batch_size=batch_size
    ):
        items[rows], scores[rows] = best
    return items, scores


def distillation_lists(
    score_fn: ScoreFn | PlacedScores,
    histories: Histories,
    *,
    settings: ListSettings,
    allowed: Bool[np.ndarray, " I"],
    seen: Histories | None = None,
    numbers: Int[np.ndarray, " N"] | None = None,
    batch_size: int = 256,
) -> TeacherLists:
    """The teacher's top h items and m - h random negatives, with scores for all of them.

    Negatives are allowed, unseen, distinct and not in the top h. Those of a row depend only on
    (seed, its number) and the row's own items: other rows and the batch size do not matter.

    Args:
      score_fn: see `top_lists`.
      histories: see `top_lists`.
      settings: h, m and the seed of the negatives.
      allowed: see `top_lists`.
      seen: see `top_lists`.
      numbers: the rows' numbers; None = 0, 1, 2, ... Rows of one number have the same negatives, but for what they have seen.
      batch_size: see `top_lists`.

    Raises:
      UserError: a row has fewer than m allowed unseen items, or scores are not finite.
    """
    items = np.zeros((len(histories), settings.num_candidates), np.int32)
    scores = np.zeros(items.shape, np.float32)
    top_h, known = settings.top_h, np.flatnonzero(allowed)
    numbers = np.arange(len(histories)) if numbers is None else numbers
    for rows, (top, best), closed, picked in _ranked_batches(
        score_fn, histories, top_h=top_h, allowed=allowed, seen=seen, batch_size=batch_size
    ):
        taken = np.concatenate([closed, top], axis=1)
        negatives = drawn_negatives(known, taken, settings, numbers[rows])
        items[rows] = np.concatenate([top, negatives], axis=1)
        scores[rows] = np.concatenate([best, picked(negatives)], axis=1)
    return TeacherLists(items=items, scores=scores)


def drawn_negatives(
    known: Int[np.ndarray, " K"],
    taken: Int[np.ndarray, "B T"],
    settings: ListSettings,
    rows: Int[np.ndarray, " B"],
) -> Int[np.ndarray, "B m-h"]:
    """The random negatives of some rows, each of which depends only on (seed, row number) and the row's own items.

    The catalogue is not read: a row takes the first numbers of its own stream that are neither taken nor repeats.

    Args:
      known: the allowed items, ascending.
      taken: the items that each row has seen and its top h, padded with -1 anywhere.
      settings: h, m and the seed.
      rows: the rows' numbers.

    Raises:
      UserError: a row has fewer than m allowed unseen items.
    """
    excluded = taken_codes(known, taken)
    left = len(known) - np.bincount(excluded // len(known), minlength=len(rows))
    _check_enough(left + settings.top_h, settings.num_candidates, rows)
    count = settings.num_candidates - settings.top_h
    if count == 0:
        return np.zeros((len(rows), 0), np.int32)
    keys = row_keys(f"{_STREAM}/{settings.seed}", rows)
    drawn = distinct_items(keys, count, num_items=len(known), excluded=excluded)
    negatives: Int[np.ndarray, "B m-h"] = known[drawn].astype(np.int32)
    return negatives


def _ranked_batches(
    score_fn: ScoreFn | PlacedScores,
    histories: Histories,
    *,
    top_h: int,
    allowed: np.ndarray,
    seen: Histories | None,
    batch_size: int,
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray, Pick]]:
    """Yields (row numbers [b], their (top items, scores) [b, h], what they have seen, what picks their scores of items).

    All are checked. No array of the catalogue's width leaves the device, and none of all rows is made. While the caller has one
    batch, the device works on the next.
    """
    if top_h > len(allowed):
        _check_enough(np.array([len(allowed)]), top_h, np.zeros(1, int))
    score: Callable[..., Array] = score_fn
    if isinstance(score_fn, PlacedScores):
        batch_size = score_fn.rows(batch_size)
    else:
        score = jax.jit(score_fn)

    def dispatched(start: int) -> tuple[np.ndarray, np.ndarray, Array, tuple[Array, ...]]:
        rows = np.arange(start, min(start + batch_size, len(histories)))
        nothing = np.full((len(rows), 1), PAD_ITEM, np.int32)
        closed = nothing if seen is None else some_rows(seen, rows)
        scores = score(_padded_rows(some_rows(histories, rows), batch_size))
        found = best_items(scores, _padded_rows(closed, batch_size), allowed, count=top_h)
        return rows, closed, scores, found

    starts = range(0, len(histories), batch_size)
    for rows, closed, scores, found in _one_ahead(map(dispatched, starts)):
        top, best, finite, free = (on_host(x)[: len(rows)] for x in found)
        if not finite.all():
            raise UserError(
                f"the teacher's scores for row {rows[0]} or later are not finite: a network has diverged (lower "
                "teacher.optimizer.learning_rate and train it again); a recommender of your own must score every item"
            )
        _check_enough(free, top_h, rows)

        def pick(items: np.ndarray, scores: Array = scores) -> np.ndarray:
            padded = _padded_rows(items, batch_size)
            return on_host(scores_of(scores, padded))[: len(items)]

        yield rows, (top, best), closed, pick


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches; each is made before the one before it is given out."""
    before: Batch | None = None
    for batch in batches:
        if before is not None:
            yield before
        before = batch
    if before is not None:
        yield before


def _padded_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Adds rows of padding up to `count`, so that one compiled shape serves all batches."""
    return np.pad(rows, ((0, count - len(rows)), (0, 0)), constant_values=PAD_ITEM)


def _check_enough(available: np.ndarray, needed: int, rows: np.ndarray) -> None:
    """Raises a `UserError` if a list cannot be filled: `available` items [B] for these row numbers."""
    if len(rows) and available.min() < needed:
        worst = int(available.argmin())
        raise UserError(
            f"teacher lists: row {rows[worst]} has {available[worst]} items that the teacher knows and the "
            f"user has not seen, but {needed} are needed; lower distill.top_h or "
            "distill.num_candidates"
        )
