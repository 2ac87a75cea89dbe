"""The one split that every stage shares: what is trained on, and what is predicted in validation and test.

Teacher, prompts, adapters and evaluation all read this split, so that a user's validation and test items are the same
for every system and no stage sees another's targets. All kinds (`split_kinds`) have the same form: the beginning of each
user's sequence (possibly all or nothing of it) is for training, and each part (validation, test) evaluates some users on one
later item, the target, which is predicted from all items before it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64

from delrec_jax import prng
from delrec_jax.data.interactions import Interactions
from delrec_jax.errors import UserError
from delrec_jax.padding import PAD_ITEM

Part = Literal["valid", "test"]
PARTS: tuple[Part, ...] = ("valid", "test")

_FEW_USERS = 1000


@dataclasses.dataclass(frozen=True)
class Targets:
    """The users and targets of one part.

    Attributes:
      users: int32 [E] the evaluated users, ascending.
      places: int64 [E] index of each user's target in `Split.interactions.items`; all of the user's items before it are given.
    """

    users: Int32[np.ndarray, "E"]
    places: Int64[np.ndarray, "E"]


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of one corpus.

    Attributes:
      kind: One of `split_kinds.KINDS`.
      interactions: All users' complete sequences.
      train: The training part: the beginning of each user's sequence, with users numbered as in the corpus.
      parts: The users and targets of validation and test.
    """

    kind: str
    interactions: Interactions
    train: Interactions
    parts: Mapping[Part, Targets]

    def users(self, part: Part) -> Int32[np.ndarray, "E"]:
        """Returns the users evaluated in `part`, ascending."""
        return self.parts[part].users

    def target(self, part: Part) -> Int32[np.ndarray, "E"]:
        """Returns the items to be predicted in `part`, in the order of `users(part)`."""
        targets: np.ndarray = self.interactions.items[self.parts[part].places]
        return targets

    def history(self, part: Part, user: int) -> Int32[np.ndarray, "L"]:
        """Returns the items of an evaluated user before the target of `part`, oldest first.

        Args:
          part: "valid" or "test".
          user: A user's number, not a position in `users(part)`.

        Raises:
          ValueError: if the user is not evaluated in this part.
        """
        targets = self.parts[part]
        row = int(np.searchsorted(targets.users, user))
        if row == len(targets.users) or targets.users[row] != user:
            raise ValueError(
                f"user {user} is not evaluated in {part}: history too short, in another part, or unknown"
            )
        return self.interactions.items[self.interactions.offsets[user] : targets.places[row]]

    def histories(
        self, part: Part, rows: Int64[np.ndarray, "B"] | None = None
    ) -> list[Int32[np.ndarray, "L"]]:
        """Returns the `history` of users evaluated in `part`: of all, in order, or of these positions in `users(part)`."""
        items, chosen = self.interactions.items, slice(None) if rows is None else rows
        users, places = self.parts[part].users[chosen], self.parts[part].places[chosen]
        starts = self.interactions.offsets[users]
        return [items[start:place] for start, place in zip(starts, places, strict=True)]

    def history_lengths(self, part: Part) -> Int64[np.ndarray, "E"]:
        """Returns how many items each evaluated user has before the target."""
        asked = self.parts[part]
        lengths: np.ndarray = asked.places - self.interactions.offsets[asked.users]
        return lengths

    def seen_counts(self, part: Part) -> Int64[np.ndarray, "E"]:
        """Returns how many different items each evaluated user has before the target."""
        return different_items(self.history_lengths(part), np.concatenate(self.histories(part)))

    @property
    def training_users(self) -> Int32[np.ndarray, "_"]:
        """The users with any items in the training part, ascending."""
        return np.flatnonzero(self.train.lengths > 0).astype(np.int32)

    def train_counts(self, num_items: int) -> Int64[np.ndarray, "I"]:
        """Returns how often each item occurs in the training part."""
        return np.bincount(self.train.items, minlength=num_items).astype(np.int64)

    def known_items(self, num_items: int) -> Bool[np.ndarray, "I"]:
        """Returns which items occur in the training part."""
        known: np.ndarray = self.train_counts(num_items) > 0
        return known

    def cold_items(self, num_items: int) -> Bool[np.ndarray, "I"]:
        """Returns which items do not occur in the training part."""
        return ~self.known_items(num_items)

    def warnings(self) -> list[str]:
        """Returns what a reader of this split's results must know: which parts are too small to distinguish systems."""
        found = []
        for part, asked in self.parts.items():
            count = len(asked.users)
            if count < _FEW_USERS:
                half = 1.96 * (0.45 * 0.55 / count) ** 0.5
                found.append(
                    f"split {self.kind}: {part} has only {count} users; a 95 % interval at HR@1 0.45 is +/- {half:.2f}"
                )
        return found


def different_items(
    lengths: Int64[np.ndarray, "R"], items: Int32[np.ndarray, "N"]
) -> Int64[np.ndarray, "R"]:
    """Returns how many different items each row has; `items` are those of all rows, one row after another."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    count = int(items.max(initial=0)) + 1
    return np.bincount(np.unique(row * count + items) // count, minlength=len(lengths))


def padded_histories(
    split: Split, part: Part, length: int, *, rows: Int64[np.ndarray, "B"] | None = None
) -> Int32[np.ndarray, "B L"]:
    """Returns the latest `length` items before each target, left-padded with -1.

    Args:
      split: The split.
      part: "valid" or "test".
      length: L, at least 1; older items are left out.
      rows: Positions in `split.users(part)`; None = all E, in order.

    Returns:
      int32 [B, L], the most recent item last.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, not {length}")
    chosen = slice(None) if rows is None else rows
    places, users = split.parts[part].places[chosen], split.parts[part].users[chosen]
    given = places - split.interactions.offsets[users]
    return latest_items(split.interactions.items, places, given, length)


def latest_items(
    items: Int32[np.ndarray, "M"],
    places: Int64[np.ndarray, "B"],
    given: Int64[np.ndarray, "B"],
    length: int,
) -> Int32[np.ndarray, "B L"]:
    """Returns the latest `length` items before each place, int32, left-padded with -1.

    Args:
      items: All users' items, one user after the other.
      places: Index in `items` before which a history ends.
      given: How many items before it are the user's.
      length: L, at least 1.
    """
    back = np.arange(length, 0, -1)
    source = np.maximum(places[:, None] - back, 0)  # [B, L]
    return np.where(back <= given[:, None], items[source], np.int32(PAD_ITEM))


def partition_users(
    users: Int32[np.ndarray, "E"], fractions: Mapping[str, float], seed: int
) -> dict[str, Int32[np.ndarray, "_"]]:
    """Assigns each user to exactly one of the named parts.

    Args:
      users: Users' numbers, without repeats.
      fractions: The share of each part by name; the shares sum to 1.
      seed: Seed of the shuffle; the same users and seed give the same parts.

    Returns:
      The users of each part by name, ascending.

    Raises:
      UserError: if a share is negative, the shares do not sum to 1, or a part with a positive share would get no user.
    """
    shares = np.array(list(fractions.values()), float)
    if np.any(shares < 0) or not np.isclose(shares.sum(), 1.0):
        raise UserError(
            f"user fractions {dict(fractions)}: shares must be at least 0 and sum to 1, "
            f"but they sum to {shares.sum():g}"
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


def drawn_users(
    users: Int[np.ndarray, "E"], count: int, seed: int, stream: str
) -> Int[np.ndarray, "_"]:
    """Returns `count` of these users (or rows of users) in ascending order; all of them if `count` is 0 or there are no more.

    Args:
      users: Users' numbers, ascending and without repeats.
      count: How many are drawn; all of a smaller draw are in a larger one.
      seed: Seed of the draw.
      stream: Name of its random stream (`prng.generator`).
    """
    if not 0 < count < len(users):
        return users
    return np.sort(prng.generator(seed, stream).permutation(users)[:count])
