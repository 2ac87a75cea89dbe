"""Which users a report shows one by one: a random few of each of four groups, by who found the target and who did not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from delrec_jax import prng
from delrec_jax.errors import UserError

GROUPS = ("ours_only", "theirs_only", "both", "neither")
"""Which of two systems found the target of a user."""

FOUND = 5
"""A system found the target if its rank is this or better."""

PER_GROUP = 12


@dataclass(frozen=True)
class ShownUsers:
    """The users that are shown, and how many there are to choose from.

    Attributes:
      users: by group, in ascending order.
      counts: the number of all users of each group.
      protocol: under which they were ranked.
      seed: of the draw.
      most: users per group.
    """

    users: Mapping[str, tuple[int, ...]]
    counts: Mapping[str, int]
    protocol: str
    seed: int
    most: int

    def histories(self, history: Callable[[int], np.ndarray]) -> dict[int, list[int]]:
        """The items of each shown user, by a function from a user to them."""
        return {user: history(user).tolist() for own in self.users.values() for user in own}

    @property
    def rule(self) -> str:
        """How the users were chosen, for a reader."""
        return (
            f"Of each group {self.most} users at most, drawn at random (seed {self.seed}); nobody picked them. A system "
            f"counts as correct if the target is among its first {FOUND} under protocol {self.protocol}."
        )


def choose_users(
    records: pl.DataFrame,
    ours: str,
    theirs: str,
    *,
    protocol: str,
    seed: int = 0,
    most: int = PER_GROUP,
) -> ShownUsers:
    """Draws users of every group at random, so that nobody has picked them.

    Args:
      records: rank records of one corpus, split, teacher and seed.
      ours: a system.
      theirs: another one.
      protocol: the protocol of both.
      seed: seed of the random stream "shown-users".
      most: users per group; a smaller group is shown whole.

    Raises:
      UserError: a system was not ranked under this protocol.
    """
    ranked = records.filter(protocol=protocol).sort("user")
    rows = {name: ranked.filter(system=name) for name in (ours, theirs)}
    for name, own in rows.items():
        if own.is_empty():
            raise UserError(f"records: no rows of '{name}' under protocol '{protocol}'")
    users = rows[ours]["user"].to_numpy()
    first, second = (own["rank"].to_numpy() <= FOUND for own in rows.values())
    of_group = (first & ~second, ~first & second, first & second, ~first & ~second)
    groups = {name: users[inside] for name, inside in zip(GROUPS, of_group, strict=True)}
    return ShownUsers(
        users={
            name: _drawn(own, seed, place, most) for place, (name, own) in enumerate(groups.items())
        },
        counts={name: len(own) for name, own in groups.items()},
        protocol=protocol,
        seed=seed,
        most=most,
    )


def _drawn(users: np.ndarray, seed: int, place: int, most: int) -> tuple[int, ...]:
    order = prng.generator(seed, "shown-users", place).permutation(len(users))
    return tuple(sorted(users[order[:most]].tolist()))
