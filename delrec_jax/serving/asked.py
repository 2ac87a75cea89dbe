"""Histories that somebody asks about, in the form of a split: systems answer them as they answer test users."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from delrec_jax.data.interactions import Interactions, from_rows
from delrec_jax.data.splits import Split, Targets
from delrec_jax.data.title_tokens import Ids
from delrec_jax.errors import UserError

_NOT_ASKED = 0  # closes each history where a split has the target, which nothing reads here


def asked_split(histories: Sequence[Ids]) -> Split:
    """Returns a split whose test part is these histories, in their order; nobody who answers reads its training part.

    Args:
      histories: items, oldest first; at least one each.
    """
    rows = np.arange(len(histories), dtype=np.int32)
    ends = np.cumsum([len(history) + 1 for history in histories])
    closed = [np.append(history, np.int32(_NOT_ASKED)) for history in histories]
    interactions = Interactions(
        user_ids=tuple(map(str, rows)),
        offsets=np.concatenate([[0], ends]).astype(np.int64),
        items=np.concatenate(closed).astype(np.int32),
        times=np.arange(ends[-1], dtype=np.int64),
    )
    asked = Targets(rows, ends.astype(np.int64) - 1)
    return Split("asked", interactions, from_rows((), (), ()), {"test": asked})


def as_list(given: Any, what: str, of: str) -> list[Any]:
    """Returns what was given one after the other, such as by a generator; one text or a number is no such thing.

    Raises:
      UserError: it is not; `what` stands before it, and `of` says of what it should be a list.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise UserError(f"{what} is {str(given)[:60]!r}: give a list of {of}")
    return list(given)


def check_number(candidates: Sequence[object], count: int) -> None:
    """Refuses another number of lists of candidates than there are histories."""
    if len(candidates) != count:
        raise UserError(
            f"candidates has {len(candidates)} lists for {count} histories: give one each"
        )


def check_items(lists: Sequence[Ids], num_items: int, place: str) -> None:
    """Refuses empty lists, and numbers that are no items: as indices, some of them would be taken for other items.

    Raises:
      UserError: names the list, such as `history 3`.
    """
    for number, items in enumerate(lists):
        found = np.asarray(items)
        if not found.size:
            raise UserError(f"{place} {number} is empty: give at least one item")
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise UserError(
                f"{place} {number} is {str(items)[:60]}: give a list of the numbers of items, which are whole"
            )
        if not 0 <= np.min(items) <= np.max(items) < num_items:
            raise UserError(
                f"{place} {number} has an item that is not in the catalogue: items have the numbers 0 to {num_items - 1}"
            )
