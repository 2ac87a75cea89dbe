"""Who is trained on what: the one split that every stage shares.

Teacher, prompts, adapters and evaluation all read this split, so a user's validation
and test items are the same for every system and no stage sees another's targets.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int32, Int64

from delrec_jax import prng
from delrec_jax.data.interactions import Interactions
from delrec_jax.errors import UserError

Part = Literal["valid", "test"]
PARTS: tuple[Part, ...] = ("valid", "test")
PADDING = -1

_MIN_INTERACTIONS = 3  # one to train on, one to validate, one to test


@dataclasses.dataclass(frozen=True)
class Split:
    """Leave-one-out: a user's last item is the test target, the one before validation's.

    Attributes:
      train: The training part, with the users of the corpus in their order.
      users: int32 [E] the evaluated users, ascending.
      valid_target: int32 [E] each evaluated user's second last item.
      test_target: int32 [E] each evaluated user's last item.
      short_users: The number of users with too few interactions to be evaluated; all
        their rows are in `train`.
    """

    train: Interactions
    users: Int32[np.ndarray, "E"]
    valid_target: Int32[np.ndarray, "E"]
    test_target: Int32[np.ndarray, "E"]
    short_users: int

    def target(self, part: Part) -> Int32[np.ndarray, "E"]:
        """The items to be predicted in `part`, one for each of `users`."""
        return {"valid": self.valid_target, "test": self.test_target}[part]

    def history(self, part: Part, user: int) -> Int32[np.ndarray, "L"]:
        """The items of an evaluated user before the target of `part`, oldest first.

        Args:
          part: "valid" (the training part) or "test" (with the validation item).
          user: A user's number, not a position in `users`.

        Raises:
          ValueError: if the user is not an evaluated one.
        """
        return self._history_at(part, self._row(user))

    def train_counts(self, num_items: int) -> Int64[np.ndarray, "I"]:
        """How often each item occurs in the training part."""
        return np.bincount(self.train.items, minlength=num_items).astype(np.int64)

    def cold_items(self, num_items: int) -> Bool[np.ndarray, "I"]:
        """Which items no user has in the training part."""
        return self.train_counts(num_items) == 0

    def _row(self, user: int) -> int:
        row = int(np.searchsorted(self.users, user))
        if row == len(self.users) or self.users[row] != user:
            raise ValueError(f"user {user} is not evaluated: fewer than 3 interactions, or unknown")
        return row

    def _history_at(self, part: Part, row: int) -> Int32[np.ndarray, "L"]:
        trained = self.train.history(int(self.users[row]))
        if part == "valid":
            return trained
        return np.append(trained, self.valid_target[row]).astype(np.int32)


def leave_one_out(interactions: Interactions) -> Split:
    """Splits each user's sequence into training, one validation and one test item.

    Args:
      interactions: Sequences in time order. Users with fewer than 3 interactions are
        trained on and not evaluated.

    Returns:
      The split; `train` keeps the numbering of users.

    Raises:
      UserError: if no user is long enough to be evaluated.
    """
    lengths = interactions.lengths
    evaluated = lengths >= _MIN_INTERACTIONS
    if not evaluated.any():
        longest = int(lengths.max()) if len(lengths) else 0
        raise UserError(
            f"split leave_one_out: none of {len(lengths)} users has {_MIN_INTERACTIONS} "
            f"interactions (the longest history has {longest}), so nobody can be evaluated; "
            "lower data.k_core or data.min_rating, or give a corpus with longer histories"
        )
    ends = interactions.offsets[1:][evaluated]
    keep = np.ones(len(interactions.items), bool)
    keep[ends - 1] = False
    keep[ends - 2] = False
    train_lengths = lengths - 2 * evaluated
    train = Interactions(
        user_ids=interactions.user_ids,
        offsets=np.concatenate([[0], np.cumsum(train_lengths)]).astype(np.int64),
        items=interactions.items[keep],
        times=interactions.times[keep],
    )
    return Split(
        train=train,
        users=np.flatnonzero(evaluated).astype(np.int32),
        valid_target=interactions.items[ends - 2],
        test_target=interactions.items[ends - 1],
        short_users=int(np.sum(~evaluated)),
    )


def padded_histories(split: Split, part: Part, length: int) -> Int32[np.ndarray, "E L"]:
    """The latest `length` items before each target, left-padded with -1.

    Args:
      split: The split.
      part: "valid" or "test".
      length: L, at least 1; older items are left out.

    Returns:
      int32 [E, L], rows in the order of `split.users`, the most recent item last.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, not {length}")
    result = np.full((len(split.users), length), PADDING, np.int32)
    for row in range(len(split.users)):
        recent = split._history_at(part, row)[-length:]
        result[row, length - len(recent) :] = recent
    return result


def partition_users(
    users: Int32[np.ndarray, "E"], fractions: Mapping[str, float], seed: int
) -> dict[str, Int32[np.ndarray, "_"]]:
    """Deals users into named parts, disjoint and covering.

    Args:
      users: Users' numbers, each once.
      fractions: Name of the part to its share; the shares sum to 1.
      seed: Of the shuffle; the same users and seed give the same parts.

    Returns:
      For each name the part's users, ascending.

    Raises:
      UserError: if a share is negative, the shares do not sum to 1, or a part with a
        positive share would get no user.
    """
    shares = np.array(list(fractions.values()), float)
    if np.any(shares < 0) or not np.isclose(shares.sum(), 1.0):
        raise UserError(
            f"user fractions {dict(fractions)}: shares must be at least 0 and sum to 1, "
            f"they sum to {shares.sum():g}"
        )
    shuffled = prng.generator(seed, "partition_users").permutation(users)
    bounds = np.rint(np.cumsum(shares) * len(users)).astype(int)[:-1]
    parts = dict(zip(fractions, map(np.sort, np.split(shuffled, bounds)), strict=True))
    empty = [name for name, share in fractions.items() if share > 0 and not len(parts[name])]
    if empty:
        raise UserError(
            f"user fractions {dict(fractions)}: {len(users)} users leave {empty[0]!r} empty; "
            "raise its share or use more users"
        )
    return parts
