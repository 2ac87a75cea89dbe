"""The teacher's lists: what stage 1 distills, made once per checkpoint and stored on disk.

A list holds the teacher's h best items for a history, best first, then random negatives
up to m candidates, with the teacher's scores for all of them (so that the full order can
be distilled and not only its head).
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.files import whole
from delrec_jax.padding import PAD_ITEM
from delrec_jax.prng import generator
from delrec_jax.teachers.protocol import ScoreFn
from delrec_jax.teachers.standardised import unseen_items

_STREAM = "teacher-negatives"


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


@dataclass(frozen=True)
class ListsKey:
    """What lists depend on; lists with another key are stale.

    Attributes:
        checkpoint: id of the teacher's checkpoint.
        settings: h, m and the seed.
        inputs: hash of histories, seen items and allowed items, from `inputs_hash`.
    """

    checkpoint: str
    settings: ListSettings
    inputs: str


def top_lists(
    score_fn: ScoreFn,
    histories: Int[np.ndarray, "N L"],
    *,
    top_h: int,
    allowed: Bool[np.ndarray, " I"],
    seen: Int[np.ndarray, "N S"] | None = None,
    batch_size: int = 256,
) -> tuple[Int[np.ndarray, "N h"], Float[np.ndarray, "N h"]]:
    """The teacher's best items for each history, best first.

    Args:
        score_fn: the teacher's `scores`; compiled here, once.
        histories: left-padded with -1; may be shorter than what the user has seen.
        top_h: h, items per list.
        allowed: False excludes an item from all lists (the teacher never saw it).
        seen: items to leave out, one row per history, padded with -1 anywhere; None leaves none out.
        batch_size: rows per compiled call; the last batch is padded, and its padding dropped.

    Returns:
        `(items, scores)`, int32 and float32. Items with equal scores are in index order.

    Raises:
        UserError: a row has fewer than h allowed unseen items, or scores are not finite.
    """
    batches = _ranked_batches(
        score_fn, histories, top_h=top_h, allowed=allowed, seen=seen, batch_size=batch_size
    )
    tops = [
        (top, np.asarray(jnp.take_along_axis(scores[: len(top)], top, axis=1)))
        for _, top, scores, _ in batches
    ]
    empty = (np.zeros((0, top_h), np.int32), np.zeros((0, top_h), np.float32))
    items, scores = zip(*tops, strict=True) if tops else ((empty[0],), (empty[1],))
    return np.concatenate(items), np.concatenate(scores)


def distillation_lists(
    score_fn: ScoreFn,
    histories: Int[np.ndarray, "N L"],
    *,
    settings: ListSettings,
    allowed: Bool[np.ndarray, " I"],
    seen: Int[np.ndarray, "N S"] | None = None,
    batch_size: int = 256,
) -> TeacherLists:
    """The teacher's top h items and m - h random negatives, with scores for all of them.

    Negatives are allowed, unseen, distinct and not in the top h. Those of row n depend only on
    (seed, n) and the row's own items: other rows and the batch size do not matter.

    Args:
        score_fn: see `top_lists`.
        histories: see `top_lists`.
        settings: h, m and the seed of the negatives.
        allowed: see `top_lists`.
        seen: see `top_lists`.
        batch_size: see `top_lists`.

    Raises:
        UserError: a row has fewer than m allowed unseen items, or scores are not finite.
    """
    items = np.zeros((len(histories), settings.num_candidates), np.int32)
    scores = np.zeros(items.shape, np.float32)
    for start, top, batch_scores, open_items in _ranked_batches(
        score_fn,
        histories,
        top_h=settings.top_h,
        allowed=allowed,
        seen=seen,
        batch_size=batch_size,
    ):
        pools = np.array(open_items)[: len(top)]
        np.put_along_axis(pools, top, False, axis=1)
        for row, pool_mask in enumerate(pools):
            negatives = drawn_negatives(pool_mask, settings, start + row)
            items[start + row] = np.concatenate([top[row], negatives])
        rows = slice(start, start + len(top))
        scores[rows] = np.take_along_axis(np.asarray(batch_scores)[: len(top)], items[rows], 1)
    return TeacherLists(items=items, scores=scores)


def drawn_negatives(
    pool: Bool[np.ndarray, " I"], settings: ListSettings, row: int
) -> Int[np.ndarray, " m-h"]:
    """The random negatives of a row, which depend only on (seed, row) and the pool.

    Args:
        pool: the allowed unseen items that are not in the top h.
        settings: h, m and the seed.
        row: its number.

    Raises:
        UserError: the pool is too small.
    """
    items = np.flatnonzero(pool)
    _check_enough(len(items) + settings.top_h, settings.num_candidates, row)
    draw = generator(settings.seed, _STREAM, row)
    negatives: Int[np.ndarray, " m-h"] = draw.choice(
        items, settings.num_candidates - settings.top_h, replace=False
    )
    return negatives


def _ranked_batches(
    score_fn: ScoreFn,
    histories: np.ndarray,
    *,
    top_h: int,
    allowed: np.ndarray,
    seen: np.ndarray | None,
    batch_size: int,
) -> Iterator[tuple[int, np.ndarray, Array, Array]]:
    """Yields (first row, top items [b, h], scores [B, I], open items [B, I]), checked.

    The two large arrays stay on the device, including the rows that fill up the last batch.
    """
    if top_h > len(allowed):
        _check_enough(len(allowed), top_h, 0)
    seen = np.full((len(histories), 1), PAD_ITEM, np.int32) if seen is None else seen
    allowed_items = jnp.asarray(allowed)

    @jax.jit
    def rank(histories: Array, seen: Array) -> tuple[Array, ...]:
        scores = score_fn(histories).astype(jnp.float32)  # [B, I]
        open_items = unseen_items(seen, scores.shape[1]) & allowed_items
        _, top = jax.lax.top_k(jnp.where(open_items, scores, -jnp.inf), top_h)  # [B, h]
        return top, jnp.isfinite(scores).all(1), open_items.sum(1), scores, open_items

    for start in range(0, len(histories), batch_size):
        count = min(batch_size, len(histories) - start)
        parts = (_padded_rows(x[start : start + count], batch_size) for x in (histories, seen))
        *small, scores, open_items = rank(*parts)
        top, finite, free = (np.asarray(x)[:count] for x in small)
        if not finite.all():
            raise UserError(
                f"the teacher's scores for row {start} or later are not finite: its training "
                "diverged; lower teacher.optimizer.learning_rate and train it again"
            )
        _check_enough(int(free.min()), top_h, start + int(free.argmin()))
        yield start, top.astype(np.int32), scores, open_items


def _padded_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Adds rows of padding up to `count`, so that one compiled shape serves all batches."""
    return np.pad(rows, ((0, count - len(rows)), (0, 0)), constant_values=PAD_ITEM)


def _check_enough(available: int, needed: int, row: int) -> None:
    """Raises a `UserError` if a list cannot be filled."""
    if available < needed:
        raise UserError(
            f"teacher lists: row {row} has {available} items that the teacher knows and the "
            f"user has not seen, but {needed} are needed; lower distill.top_h or "
            "distill.num_candidates"
        )


def inputs_hash(*arrays: np.ndarray | None) -> str:
    """SHA-256 of arrays with their shapes and types; identifies the rows that lists were made for."""
    digest = hashlib.sha256()
    for array in arrays:
        value = np.zeros(0) if array is None else np.ascontiguousarray(array)
        digest.update(f"{array is None} {value.dtype.str} {value.shape};".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def save_lists(path: Path, lists: TeacherLists, *, key: ListsKey) -> None:
    """Writes lists and their key to an npz file; the file is complete or absent, never partial."""
    header = {"key": asdict(key), "content": inputs_hash(lists.items, lists.scores)}
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, header=text, items=lists.items, scores=lists.scores)


def load_lists(path: Path, *, key: ListsKey) -> TeacherLists:
    """Reads lists that were made under `key`.

    Raises:
        UserError: the file is missing, damaged or altered, or belongs to another
            checkpoint, other settings or other histories. The caller may make them again.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            lists = TeacherLists(items=file["items"], scores=file["scores"])
        content, found = header["content"], header["key"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read as teacher lists ({error}); delete it") from error
    if content != inputs_hash(lists.items, lists.scores):
        raise UserError(f"{path}: its content was altered after it was written; delete it")
    for name, value in asdict(key).items():
        if found.get(name) != value:
            raise UserError(
                f"{path}: made for {name} {found.get(name)}, asked for {value}; delete it to "
                "have it made again"
            )
    return lists
