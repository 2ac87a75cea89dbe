"""The best items of each row of scores, found where the scores are: on one device, or on each of a mesh.

Scores and ranks are different programs. Fused into one, a score might be computed twice and rounded differently, so that two
items tie in one place and not in the other.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.teachers.standardised import unseen_items

Found = tuple[Array, Array, Array, Array]
_Axes = str | tuple[str, ...] | None


def best_items(
    scores: Float[Array, "B I"],
    seen: Int[np.ndarray, "B S"],
    allowed: Bool[np.ndarray, " I"],
    *,
    count: int,
) -> Found:
    """The best allowed unseen items of each row, best first; those with equal scores are in index order.

    Over a mesh, each device finds the best among its own columns, and only these are exchanged.

    Args:
      scores: on one device or split over a mesh, by rows and by columns.
      seen: items to leave out, padded with -1 anywhere.
      allowed: False excludes an item from all rows.
      count: h, at most I.

    Returns:
      Items int32 [B, h] and their scores float32 [B, h]; whether all scores of a row are finite [B]; how many items of a row
      are allowed and unseen [B], which is less than h where the last items are neither.
    """
    home = scores.sharding
    if not isinstance(home, NamedSharding) or home.is_fully_replicated:
        alone: Found = _on_one_device(scores, seen, allowed, count=count)
        return alone
    rows, columns = (*home.spec, None, None)[:2]
    return _over_mesh(home.mesh, rows, columns, count)(scores, seen, allowed)


@jax.jit
def scores_of(scores: Float[Array, "B I"], items: Int[Array, "B n"]) -> Float[Array, "B n"]:
    """The scores of some items of each row; of padding (-1), any. Over a mesh, only these are exchanged."""
    return jnp.take_along_axis(scores, jnp.maximum(items, 0), axis=1).astype(jnp.float32)


@partial(jax.jit, static_argnames="count")
def _on_one_device(scores: Array, seen: Array, allowed: Array, *, count: int) -> Found:
    scores = scores.astype(jnp.float32)
    is_open = unseen_items(seen, scores.shape[1]) & allowed
    best, top = jax.lax.top_k(jnp.where(is_open, scores, -jnp.inf), count)  # [B, h]
    return top, best, jnp.isfinite(scores).all(1), is_open.sum(1)


@lru_cache(maxsize=8)
def _over_mesh(mesh: Mesh, rows: _Axes, columns: _Axes, count: int) -> Callable[..., Found]:
    """`best_items` of scores whose rows and columns are split over these axes of the mesh."""

    def found(scores: Array, seen: Array, allowed: Array) -> Found:
        """The same of one device's rows and columns, then of all columns."""
        width = scores.shape[1]
        first = jax.lax.axis_index(columns) * width if columns else 0
        # Columns of other devices are out of bounds here, and padding is too.
        own = (seen >= first) & (seen < first + width)
        closest = min(count, width)
        top, best, finite, free = _on_one_device(
            scores, jnp.where(own, seen - first, -1), allowed, count=closest
        )
        if columns:
            finite = jax.lax.pmin(finite.astype(jnp.int32), columns) > 0
            free = jax.lax.psum(free, columns)
            # Devices follow one another as their columns do, so items with equal scores stay in index order.
            best = jax.lax.all_gather(best, columns, axis=1, tiled=True)
            top = jax.lax.all_gather(top + first, columns, axis=1, tiled=True)
            best, place = jax.lax.top_k(best, count)
            top = jnp.take_along_axis(top, place, axis=1)
        return top, best, finite, free

    by_row = PartitionSpec(rows)
    spread = jax.shard_map(
        found,
        mesh=mesh,
        in_specs=(PartitionSpec(rows, columns), by_row, PartitionSpec(columns)),
        out_specs=(by_row, by_row, by_row, by_row),
        check_vma=False,  # it cannot see that what is gathered is the same everywhere
    )
    return jax.jit(spread)
