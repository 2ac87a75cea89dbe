"""Candidate sets: drawn once, stored with seed and hash, and never sampled again.

Evaluation reads only these files, so that two systems, or two runs, are ranked over exactly the same items.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from delrec_jax.data import stored_arrays
from delrec_jax.data.splits import Part, Split
from delrec_jax.errors import UserError
from delrec_jax.random_items import distinct_items, stream_keys, stream_place

_CELLS = 1 << 20  # numbers per step: some tens of MiB, whatever the corpus


@dataclasses.dataclass(frozen=True)
class CandidateSet:
    """Stored candidates of one part.

    Attributes:
      users: int32 [E] the users of each row, in the order of the split.
      items: int32 [E, C] distinct items, including the target, in an uninformative order.
      part: "valid" or "test".
      seed: Seed of the draw.
      hash: SHA-256 (hex) of all of the above.
    """

    users: Int32[np.ndarray, "E"]
    items: Int32[np.ndarray, "E C"]
    part: Part
    seed: int
    hash: str


def sampled_candidates(
    split: Split, part: Part, m: int, *, seed: int, num_items: int
) -> CandidateSet:
    """Draws for each evaluated user the target and m - 1 items that occur nowhere in the user's entire sequence.

    The validation sets therefore reveal nothing about the test item. A user's draw depends on (seed, part, raw user id) and
    on the user's own items, not on which other users exist.

    Args:
      split: The split; its targets are among the candidates.
      part: "valid" or "test".
      m: Candidates per user, at least 2.
      seed: Seed of the draw.
      num_items: I, the size of the catalogue.

    Returns:
      The sets with their hash, rows in the order of `split.users(part)`.

    Raises:
      UserError: if a user's sequence has so many items that fewer than m - 1 are left.
      ValueError: if a sequence holds an item that is not in the catalogue.
    """
    if m < 2:
        raise UserError(f"candidates: m must be at least 2 (target and one other), not {m}")
    users, targets = split.users(part), split.target(part)
    names = [split.interactions.user_ids[user] for user in users]
    met, bounds = _met_items(split, users, num_items)
    _check_enough_left(num_items - np.diff(bounds), m, num_items=num_items, names=names)
    keys = stream_keys(f"candidates/{seed}/{part}", names)
    items = np.empty((len(users), m), np.int32)
    for rows in _chunks(len(users), 2 * m):
        mine = met[bounds[rows.start] : bounds[rows.stop]] - rows.start * num_items
        drawn = distinct_items(keys[rows], m - 1, num_items=num_items, excluded=mine)
        items[rows] = _with_target(drawn, targets[rows], stream_place(keys[rows], m))
    content = stored_arrays.content_hash(
        {"part": part, "seed": seed}, {"users": users, "items": items}
    )
    return CandidateSet(users, items, part, seed, content)


def _met_items(
    split: Split, users: Int32[np.ndarray, "E"], num_items: int
) -> tuple[Int64[np.ndarray, "_"], Int64[np.ndarray, "E+1"]]:
    """Returns `row * I + item` of every item in each user's sequence, ascending and unique, and where each row begins."""
    interactions = split.interactions
    if len(interactions.items) and interactions.items.max() >= num_items:
        raise ValueError(f"item {interactions.items.max()} is not in a catalogue of {num_items}")
    row_of_user = np.full(interactions.num_users, -1)
    row_of_user[users] = np.arange(len(users))
    rows = np.repeat(row_of_user, interactions.lengths)
    codes = rows * num_items + interactions.items
    met = codes[rows >= 0]
    met.sort()  # np.unique hashes first, which is ten times slower here
    met = met[np.diff(met, prepend=-1) > 0]
    return met, np.searchsorted(met, np.arange(len(users) + 1) * num_items)


def _check_enough_left(
    left: Int64[np.ndarray, "E"], m: int, *, num_items: int, names: list[str]
) -> None:
    worst = int(np.argmin(left))
    if left[worst] < m - 1:
        raise UserError(
            f"candidates: sampled-{m} needs {m - 1} items that the user has never had, but "
            f"user {names[worst]!r} leaves {left[worst]} of {num_items}; "
            + (
                f"set candidates.num to {left[worst] + 1} or less"
                if left[worst]
                else "the catalogue is too small to rank anything for such a user"
            )
        )


def _with_target(
    negatives: Int32[np.ndarray, "R N"],
    targets: Int32[np.ndarray, "R"],
    places: Int64[np.ndarray, "R"],
) -> Int32[np.ndarray, "R C"]:
    """Puts each target in its position; the negatives keep their order, which is random."""
    is_target = np.arange(negatives.shape[1] + 1) == places[:, None]
    rows = np.empty(is_target.shape, np.int32)
    rows[is_target] = targets
    rows[~is_target] = negatives.ravel()
    return rows


def save_candidates(candidates: CandidateSet, path: Path) -> None:
    """Writes the sets as one `.npz` file; a partly written file never gets this name."""
    header = {"part": candidates.part, "seed": candidates.seed}
    arrays = {"users": candidates.users, "items": candidates.items}
    stored_arrays.save_arrays(path, header, arrays, stated_hash=candidates.hash)


def load_candidates(path: Path) -> CandidateSet:
    """Reads sets written by `save_candidates` and checks them against their hash.

    Raises:
      UserError: if the file is missing, unreadable, or was altered since it was written.
    """
    header, arrays, content = stored_arrays.load_arrays(
        path, "candidate file", header=("part", "seed"), arrays=("users", "items")
    )
    return CandidateSet(arrays["users"], arrays["items"], header["part"], header["seed"], content)


def _chunks(rows: int, width: int) -> Iterator[slice]:
    """Returns slices of rows, each small enough that one step works on `_CELLS` numbers at most."""
    size = max(1, _CELLS // width)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))
