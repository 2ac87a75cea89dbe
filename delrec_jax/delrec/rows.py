"""The positions in training histories that DELRec's texts are made from, and the candidates shown with a label."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from delrec_jax.config import DistillConfig
from delrec_jax.data.interactions import Interactions
from delrec_jax.data.splits import drawn_users, latest_items, partition_users
from delrec_jax.errors import UserError
from delrec_jax.padding import few_lengths
from delrec_jax.random_items import other_items
from delrec_jax.teachers.lists import RowsOf


@dataclass(frozen=True)
class Rows:
    """Positions in training histories: a row's history is the user's first `ends` items.

    Attributes:
      users: int32 [N].
      ends: int32 [N].
    """

    users: np.ndarray
    ends: np.ndarray


def user_parts(
    training_users: Int[np.ndarray, " U"], config: DistillConfig, seed: int
) -> dict[str, np.ndarray]:
    """The users who train the prompt (`train`), who select it (`valid`), and who are only reported on (`heldout`).

    The latter two are samples of `exam_users` users each (0 = all), since their texts are read again at every evaluation.
    """
    fractions = {
        "train": config.train_users,
        "valid": config.valid_users,
        # Rounded, since 1 - 0.9 - 0.1 is slightly below 0.
        "heldout": round(1 - config.train_users - config.valid_users, 9),
    }
    parts = partition_users(training_users, fractions, seed)
    for name in ("valid", "heldout"):
        stream = f"distill/exam_users/{name}"
        parts[name] = drawn_users(parts[name], config.exam_users, seed, stream)
    return parts


def latest_rows(train: Interactions, users: np.ndarray, positions: int, *, labelled: bool) -> Rows:
    """The latest `positions` histories of each user's training part; if `labelled`, only those with a next item in it."""
    lengths = train.lengths[users] - (1 if labelled else 0)
    counts = np.clip(lengths, 0, positions)
    firsts = lengths - counts + 1
    before = np.cumsum(counts) - counts  # the rows of earlier users
    ends = np.repeat(firsts - before, counts) + np.arange(counts.sum())
    return Rows(np.repeat(users, counts).astype(np.int32), ends.astype(np.int32))


def next_items(train: Interactions, rows: Rows) -> Int[np.ndarray, " N"]:
    """The item that follows each row, or the user's last item if none follows."""
    ends = np.minimum(rows.ends, train.lengths[rows.users] - 1)
    items: Int[np.ndarray, " N"] = train.items[train.offsets[rows.users] + ends]
    return items


def histories_before(
    interactions: Interactions, users: np.ndarray, ends: np.ndarray, length: int = 0
) -> RowsOf:
    """The first `ends` items of each user as rows that are made as they are asked for, int32 [B, L], left-padded with -1.

    Args:
      interactions: has the items.
      users: [N].
      ends: [N].
      length: L, of which older items are left out; 0 = one of a few lengths that hold all of the asked rows.
    """
    places = interactions.offsets[users] + ends

    def make(rows: np.ndarray) -> np.ndarray:
        """Makes some of them."""
        width = length or few_lengths(int(ends[rows].max(initial=1)))
        return latest_items(interactions.items, places[rows], ends[rows], width)

    return RowsOf(len(users), make)


def of_other_users(users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A permutation that assigns to every row a row of another user.

    The rows are grouped by user around a circle, with the users in random order, and rotated by the size of the largest group.

    Raises:
      UserError: one user has more than half of the rows, so that others' rows do not suffice.
    """
    everyone, counts = np.unique(users, return_counts=True)
    if 2 * counts.max() > len(users):
        raise UserError(
            f"distill: the control `shuffled` gives every row another user's list, but user number "
            f"{everyone[counts.argmax()]} has {counts.max()} of the {len(users)} rows: lower distill.positions, or let more "
            "users train (distill.train_users)"
        )
    circle = rng.permutation(len(everyone))
    place = np.empty(len(everyone), int)
    place[circle] = np.arange(len(everyone))
    grouped = np.argsort(place[np.searchsorted(everyone, users)], kind="stable")
    order = np.empty(len(users), int)
    order[grouped] = np.roll(grouped, -int(counts.max()))
    return order


def label_with_negatives(
    label: int,
    known: np.ndarray,
    seen: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    key: str,
) -> np.ndarray:
    """The label and `count` - 1 items of `known` (ascending) that are not in `seen`, int32, in random order.

    Raises:
      UserError: fewer items are left; `key` is the setting to lower.
    """
    taken = np.append(seen, label)
    negatives = other_items(known, taken, count - 1, rng, remedy=f"lower {key}")
    return rng.permutation(np.append(negatives, label)).astype(np.int32)
