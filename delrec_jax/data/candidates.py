"""Candidate sets: drawn once, stored with seed and hash, and never sampled again.

Evaluation reads these files and nothing else, so that two systems, or two runs, are
ranked over exactly the same items (design 4.10).
"""

import dataclasses
import hashlib
import os
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Float, Int32, Int64

from delrec_jax import prng
from delrec_jax.data.splits import PADDING, Part, Split
from delrec_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CandidateSet:
    """Stored candidates of one part.

    Attributes:
      users: int32 [E] whose candidates these are, in the order of the split.
      items: int32 [E, C] distinct items, the target once, in an uninformative order.
      part: "valid" or "test".
      seed: Of the draw.
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
    """Draws for each evaluated user the target and m - 1 items the user never met.

    Neither the history of the part, nor the target of either part is ever a negative, so
    the validation sets say nothing about the test item. A user's draw depends on
    (seed, part, raw user id) and the user's own items only, not on which other users exist.

    Args:
      split: The split; its targets are the ones to be found.
      part: "valid" or "test".
      m: Candidates a user, at least 2.
      seed: Of the draw.
      num_items: I, the size of the catalogue.

    Returns:
      The sets with their hash, rows in the order of `split.users`.

    Raises:
      UserError: if a user has met so many items that fewer than m - 1 are left.
    """
    if m < 2:
        raise UserError(f"candidates: m must be at least 2 (target and one other), not {m}")
    rows = np.empty((len(split.users), m), np.int32)
    for row, user in enumerate(split.users):
        name = split.train.user_ids[user]
        met = np.append(split.history("test", int(user)), split.test_target[row])
        unseen = _without(met, num_items)
        if len(unseen) < m - 1:
            raise UserError(
                f"candidates: sampled-{m} needs {m - 1} items that the user never met, but "
                f"user {name!r} leaves {len(unseen)} of {num_items}; "
                f"lower the number of candidates to {len(unseen) + 1} or less"
            )
        generator = prng.generator(seed, f"candidates/{part}/{name}")
        negatives = generator.choice(unseen, m - 1, replace=False)
        rows[row] = generator.permutation(np.append(split.target(part)[row], negatives))
    return CandidateSet(split.users, rows, part, seed, _digest(split.users, rows, part, seed))


def save_candidates(candidates: CandidateSet, path: Path) -> None:
    """Writes the sets as one `.npz` file; a half-written file never takes the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **dataclasses.asdict(candidates))
    os.replace(partial, path)


def load_candidates(path: Path) -> CandidateSet:
    """Reads sets written by `save_candidates` and checks them against their hash.

    Raises:
      UserError: if the file is missing, unreadable, or was altered since it was written.
    """
    remedy = "delete it and run `delrec prepare` again"
    if not path.is_file():
        raise UserError(f"{path}: no such candidate file; run `delrec prepare` first")
    try:
        with np.load(path, allow_pickle=False) as stored:
            values = {field.name: stored[field.name] for field in dataclasses.fields(CandidateSet)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable candidate file ({error}); {remedy}") from error
    part, seed, stored_hash = str(values["part"]), int(values["seed"]), str(values["hash"])
    found = _digest(values["users"], values["items"], part, seed)
    if part not in get_args(Part) or found != stored_hash:
        raise UserError(
            f"{path}: the content has hash {found[:12]}, the file states {stored_hash[:12]}: "
            f"it was altered after it was written; {remedy}"
        )
    return CandidateSet(values["users"], values["items"], part, seed, stored_hash)  # type: ignore[arg-type]


def rerank_candidates(
    scores: Float[np.ndarray, "E I"], histories: Int32[np.ndarray, "E L"], m: int
) -> Int32[np.ndarray, "E C"]:
    """A teacher's m best unseen items, best first: the candidates of `rerank-m`.

    The target may be absent, and then counts as a miss. Ties go to the lower index.

    Args:
      scores: Finite scores of the whole catalogue, higher is better.
      histories: Items to leave out, padded with -1 (`padded_histories`, long enough to
        hold the whole history).
      m: C, the number of candidates.

    Returns:
      int32 [E, m] distinct items.

    Raises:
      UserError: if a user has fewer than m unseen items.
      ValueError: if a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    result = np.empty((len(scores), m), np.int32)
    for row, (values, history) in enumerate(zip(scores, histories, strict=True)):
        unseen = _without(history[history != PADDING], len(values))
        if len(unseen) < m:
            raise UserError(
                f"candidates: rerank-{m} needs {m} unseen items, but row {row} leaves "
                f"{len(unseen)} of {len(values)}; lower m to {len(unseen)} or less"
            )
        losses = -values[unseen]
        worst = np.partition(losses, m - 1)[m - 1]
        best = np.flatnonzero(losses <= worst)  # ascending, so the stable sort breaks ties by index
        result[row] = unseen[best[np.argsort(losses[best], kind="stable")][:m]]
    return result


def _without(items: Int32[np.ndarray, "L"], num_items: int) -> Int64[np.ndarray, "_"]:
    """All other items of the catalogue, ascending."""
    others = np.ones(num_items, bool)
    others[items] = False
    return np.flatnonzero(others)


def _digest(
    users: Int32[np.ndarray, "E"], items: Int32[np.ndarray, "E C"], part: str, seed: int
) -> str:
    digest = hashlib.sha256(f"{part} {seed} {items.dtype} {items.shape}".encode())
    digest.update(np.ascontiguousarray(users).tobytes())
    digest.update(np.ascontiguousarray(items).tobytes())
    return digest.hexdigest()
