"""Seconds that devices spend exchanging arrays in a train step, by formula.

An array of n bytes that g devices hold in parts is whole on each of them after

    bring(n, g) = max(n (g - 1) / g / links, n (m - 1) / m / (k outside))

seconds, where the g devices are m groups of k within one slice or node, `links` is what a device receives per second over the
links that it has in the group's directions, and `outside` what it receives from other slices or nodes (`chips.Speed`). A sum of
arrays that is wanted whole (all-reduce) takes twice as long.

    weights      every time that a step reads a weight that mesh.fsdp splits, it is brought whole: `work.Work.reads`
    gradients    of what trains: summed over the devices that have other rows of the batch, in each part of it
    activations  with mesh.tensor > 1: b T D a bytes are summed 2 times per encoder block in the forward pass, 5 times in a
                 backward pass and 2 more where the block is recomputed (decoder: 3, 6, 3); token rows that are looked up in a
                 table that is split: b T D w once

b rows per device, T tokens, width D, a bytes per activation, w per weight. The numbers of sums were read in the programs that
XLA's compiler for CPU makes of an encoder-decoder; compilers for chips may merge some.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log, prod
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from delrec_jax.planning.chips import Chip
from delrec_jax.planning.memory import Part
from delrec_jax.planning.work import Work
from delrec_jax.training.sharding import Layout, key_names
from delrec_jax.training.task import Task

_ENCODER_SUMS, _DECODER_SUMS = (2, 5, 2), (3, 6, 3)  # forward, backward, recomputed
_LOOKED_UP = ("vocab", "items")


@dataclass(frozen=True)
class Exchange:
    """Seconds per step that one device spends on each kind of exchange, if nothing else goes on."""

    weights: float
    gradients: float
    activations: float


@dataclass(frozen=True)
class Grid:
    """Equal chips in equal slices, in the order of the mesh: neighbors along its last axis are next to one another."""

    chip: Chip
    count: int
    slices: int = 1

    def bring(self, size: float, ways: int, stride: int) -> float:
        """Returns the seconds until an array of `size` bytes is whole on each device of a group.

        Args:
          size: bytes of the whole array.
          ways: devices of the group.
          stride: places from one device of the group to the next.
        """
        near = min(ways, max(1, self._together // stride))
        far, speed = -(-ways // near), self.chip.speed
        within = size * (ways - 1) / ways / self._links(near) if near > 1 else 0.0
        return max(within, size * (far - 1) / far / (near * speed.outside))

    @property
    def _together(self) -> int:
        """Devices that links connect."""
        return min(self.chip.speed.node or self.count, self.count // self.slices)

    def _links(self, near: int) -> float:
        """Bytes per second that a device receives over the links in the directions of a group of `near` devices."""
        speed = self.chip.speed
        directions = max(1.0, speed.dimensions * log(near) / log(self._together))
        open_ends = 2 if self._together < speed.rings else 1
        return speed.links * directions / speed.dimensions / open_ends


def exchange_of(planned: Task, part: Part, work: Work, grid: Grid) -> Exchange:
    """Returns what a step exchanges.

    Args:
      planned: the step.
      part: one device's part of the language model in it.
      work: what the step reads.
      grid: the devices.
    """
    mesh, layout = planned.layout.mesh.shape, planned.layout
    trained = list(_leaves(planned.state.params, layout))
    frozen = list(_leaves(planned.frozen, layout))
    read = planned.parts * (1 + backward_passes(planned, work))
    weights = sum(leaf.size * read for leaf in trained if leaf.split)
    wide = part.model.sizes.activation_bytes
    weights += sum(
        leaf.size * (wide if leaf.kernel else 1) * work.reads.get(leaf.path, 0)
        for leaf in frozen
        if leaf.split
    )
    summed = planned.parts * sum(leaf.size for leaf in trained)
    return Exchange(
        weights=grid.bring(weights, mesh["fsdp"], mesh["tensor"]),
        gradients=2 * grid.bring(summed, layout.ways, mesh["tensor"]),
        activations=_activations(planned, part, work, grid),
    )


def weights_read(planned: Task, work: Work) -> float:
    """Returns the bytes of frozen weights that a device reads from its memory per step, each as often as the step reads it."""
    frozen = _leaves(planned.frozen, planned.layout)
    return sum(leaf.size * work.reads.get(leaf.path, 0) for leaf in frozen if not leaf.looked_up)


def backward_passes(planned: Task, work: Work) -> int:
    """Returns how many backward passes follow a forward pass: one, or with some weightings of tasks one per task."""
    return max(1, max(work.reads.values(), default=2) // planned.parts - 1)


class _Leaf(NamedTuple):
    """A leaf's path, and its bytes on a device once what mesh.fsdp splits is whole.

    `split` says whether mesh.fsdp splits it, `looked_up` whether it is a table of which only some rows are read, `kernel`
    whether it is in 8 bits: the compiler's programs bring such a one to the other devices in the type of the activations.
    """

    path: tuple[str, ...]
    size: float
    split: bool
    looked_up: bool
    kernel: bool


def _leaves(tree: Any, layout: Layout) -> Iterator[_Leaf]:
    fsdp = layout.mesh.shape["fsdp"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names, shape = key_names(path), tuple(leaf.shape)
        spec = layout.spec(names, shape)
        looked_up = any(axis in _LOOKED_UP for axis in layout.axes_of(names, shape))
        split = fsdp > 1 and "fsdp" in str(spec) and not looked_up
        piece = prod(NamedSharding(layout.mesh, spec).shard_shape(shape))
        size = piece * np.dtype(leaf.dtype).itemsize * (fsdp if split else 1)
        yield _Leaf(names, size, split, looked_up, leaf.dtype == np.int8)


def _activations(planned: Task, part: Part, work: Work, grid: Grid) -> float:
    mesh, model, parts = planned.layout.mesh.shape, part.model, planned.parts
    rows, tokens = -(-planned.rows // (parts * planned.layout.ways)), planned.batch.ids.shape[1]
    sizes, (count, length) = model.sizes, part.answers
    backward, again = backward_passes(planned, work), bool(work.again)

    def sums(counts: tuple[int, int, int]) -> int:
        forward, back, repeated = counts
        return forward + backward * (back + repeated * again)

    summed = sizes.encoder_blocks * tokens * sums(_ENCODER_SUMS)
    summed += sizes.decoder_blocks * count * length * sums(_DECODER_SUMS)
    size = float(rows * model.width * sizes.activation_bytes)
    found = 2 * grid.bring(size * summed, mesh["tensor"], 1)
    holders = planned.layout.ways_of("vocab")
    looked_up = rows * mesh["fsdp"] * tokens * model.width * sizes.weight_bytes
    return parts * (found + (grid.bring(looked_up, holders, 1) if holders > 1 else 0.0))
