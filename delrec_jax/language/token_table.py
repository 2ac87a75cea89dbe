"""Looks up tokens in a table whose rows are spread over devices.

By default the compiler brings the entire table to every device if a batch has many tokens. Here each device looks up all
tokens of its group among its own rows, and only the rows found are exchanged: one per token, never the table.
"""

from functools import partial
from math import prod

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int


def look_up(table: Float[Array, "V D"], ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Returns the table's rows for the ids, which must all be in the table.

    Under an active mesh (`training.sharding.Layout.active`) the table is assumed to be split by `vocab` and the ids by
    `batch`, where those divide. Differentiable with respect to the table.
    """
    holders, batch = _mesh_axes("vocab", table.shape[0]), _mesh_axes("batch", ids.shape[0])
    if not holders:
        return table[ids]
    rows = PartitionSpec(batch or None)
    found = jax.shard_map(
        partial(_among_own_rows, holders=holders, asking=tuple(a for a in holders if a in batch)),
        in_specs=(PartitionSpec(holders), rows),
        out_specs=rows,
    )
    return found(table, ids)


def _mesh_axes(name: str, size: int) -> tuple[str, ...]:
    """Returns the axes of the active mesh that split a logical axis of this size; empty if none does."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return ()
    ruled = dict(nn.get_logical_axis_rules()).get(name) or ()
    axes = tuple(axis for axis in ruled if mesh.shape[axis] > 1)
    return axes if size % prod(mesh.shape[axis] for axis in axes) == 0 else ()


def _among_own_rows(
    table: Float[Array, "v D"],
    ids: Int[Array, "b T"],
    *,
    holders: tuple[str, ...],
    asking: tuple[str, ...],
) -> Float[Array, "b T D"]:
    """Looks up tokens on one device, which holds some rows of the table and some rows of the batch.

    Args:
      table: this device's rows.
      ids: this device's texts.
      holders: axes of the mesh over which the table is spread.
      asking: those of them over which the batch is spread too, whose G devices have different texts.
    """
    if asking:
        ids = jax.lax.all_gather(ids, asking, axis=0, tiled=True)  # [G * b, T]
    place = ids - jax.lax.axis_index(holders) * table.shape[0]
    own = (place >= 0) & (place < table.shape[0])
    found = jnp.where(own[..., None], table[jnp.where(own, place, 0)], 0)  # [G * b, T, D]
    if others := tuple(axis for axis in holders if axis not in asking):
        found = jax.lax.psum(found, others)
    if asking:
        found = jax.lax.psum_scatter(found, asking, scatter_dimension=0, tiled=True)  # [b, T, D]
    return found
