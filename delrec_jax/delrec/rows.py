"""Positions inside training histories that DELRec's texts are made of, and the items that a label stands among."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from delrec_jax.config import DistillConfig
from delrec_jax.data.interactions import Interactions
from delrec_jax.data.splits import partition_users


@dataclass(frozen=True)
class Rows:
    """Positions of training histories: the history is the user's first `ends` items.

    Attributes:
      users: int32 [N].
      ends: int32 [N].
    """

    users: np.ndarray
    ends: np.ndarray


def user_parts(
    training_users: Int[np.ndarray, " U"], config: DistillConfig, seed: int
) -> dict[str, np.ndarray]:
    """Who trains the prompt (`train`), who selects it (`valid`), and who is only reported on (`heldout`)."""
    fractions = {
        "train": config.train_users,
        "valid": config.valid_users,
        # Rounded: 1 - 0.9 - 0.1 is a little below 0.
        "heldout": round(1 - config.train_users - config.valid_users, 9),
    }
    return partition_users(training_users, fractions, seed)


def latest_rows(train: Interactions, users: np.ndarray, positions: int, *, labelled: bool) -> Rows:
    """The latest `positions` histories of each user's training part; labelled ones have a next item there."""
    pairs = []
    for user in users:
        length = int(train.lengths[user]) - (1 if labelled else 0)
        pairs += [(user, end) for end in range(max(1, length - positions + 1), length + 1)]
    table = np.array(pairs, np.int32).reshape(-1, 2)
    return Rows(table[:, 0], table[:, 1])


def next_items(train: Interactions, rows: Rows) -> Int[np.ndarray, " N"]:
    """The item that follows each row; a user's last one where nothing follows."""
    ends = np.minimum(rows.ends, train.lengths[rows.users] - 1)
    return train.items[train.offsets[rows.users] + ends]


def of_other_users(users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A permutation of the rows that gives every row one of another user.

    Rows stand grouped by user in a random circle of users and are turned by the largest group.
    """
    everyone, counts = np.unique(users, return_counts=True)
    circle = rng.permutation(len(everyone))
    place = np.empty(len(everyone), int)
    place[circle] = np.arange(len(everyone))
    grouped = np.argsort(place[np.searchsorted(everyone, users)], kind="stable")
    order = np.empty(len(users), int)
    order[grouped] = np.roll(grouped, -int(counts.max()))
    return order


def among_negatives(
    label: int, known: np.ndarray, seen: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """The label and `count` - 1 unseen items that the training part knows, int32, in random order."""
    pool = np.setdiff1d(known, np.append(seen, label))
    negatives = rng.choice(pool, count - 1, replace=False)
    return rng.permutation(np.append(negatives, label)).astype(np.int32)
