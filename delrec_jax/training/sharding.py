"""Where arrays are placed: rules from names of axes to axes of the mesh (`mesh`).

Modules and parameters name their axes (`language.logical_axes`, `teachers.network`), which says what an axis means. Where it
goes is said by `mesh.rules`. The same step runs on one CPU, eight fake devices or a pod.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from delrec_jax.batches import WHOLE, Share
from delrec_jax.errors import UserError
from delrec_jax.training.mesh import MeshConfig, make_mesh, parse_rules

# (names of a leaf's keys in the tree, its shape) -> names of its axes (None = never split).
AxesOf = Callable[[tuple[str, ...], tuple[int, ...]], tuple[str | None, ...]]


@dataclass(frozen=True)
class Layout:
    """A mesh with its rules, and the names of the axes of everything that is placed on it.

    Attributes:
      mesh: the devices.
      rules: logical axis -> mesh axes.
      axes_of: returns the names of a leaf's axes.
    """

    mesh: Mesh
    rules: dict[str, tuple[str, ...]]
    axes_of: AxesOf

    @cached_property
    def whole(self) -> NamedSharding:
        """The sharding that keeps a full copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @cached_property
    def batch(self) -> NamedSharding:
        """The sharding that splits the leading axis by the rule for `batch`."""
        return NamedSharding(self.mesh, PartitionSpec(self.rules.get("batch") or None))

    @property
    def ways(self) -> int:
        """Number of parts that a batch is split into."""
        return self.ways_of("batch")

    def ways_of(self, name: str | None) -> int:
        """Number of parts that an axis of this name is split into, if its size divides evenly."""
        return prod(self.mesh.shape[axis] for axis in self._places(name))

    def _places(self, name: str | None) -> tuple[str, ...]:
        return self.rules.get(name, ()) if name else ()

    def rows(self, wanted: int) -> int:
        """Rows of the smallest batch that has at least `wanted` rows and divides over the devices."""
        return self.padded("batch", wanted)

    def padded(self, name: str, size: int) -> int:
        """The smallest multiple of the number of parts that an axis of this name is split into, at least `size`."""
        return -(-size // self.ways_of(name)) * self.ways_of(name)

    def spec(self, path: tuple[str, ...], shape: tuple[int, ...]) -> PartitionSpec:
        """Where a leaf's axes go. An axis whose size does not divide over its devices is not split."""
        names = self.axes_of(path, shape)
        if len(names) != len(shape):
            raise ValueError(f"{'/'.join(path)}: axes {names} for the shape {shape}")
        places: list[tuple[str, ...] | None] = []
        for name, size in zip(names, shape, strict=True):
            ways = self.ways_of(name)
            places.append(self._places(name) if ways > 1 and size % ways == 0 else None)
        used = [axis for axes in places if axes for axis in axes]
        if len(set(used)) < len(used):
            raise UserError(
                f"mesh.rules: {'/'.join(path)} has the axes {', '.join(map(str, names))}, two of which would be split over the "
                "same mesh axis: give them different ones"
            )
        while places and places[-1] is None:
            places.pop()
        return PartitionSpec(*places)

    def of(self, tree: Any) -> Any:
        """Shardings of a tree of parameters, leaf by leaf."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: NamedSharding(self.mesh, self.spec(key_names(path), leaf.shape)),
            tree,
        )

    def of_optimizer(self, opt_state: Any, params: Any) -> Any:
        """Shardings of an optimizer's state: what it keeps for a parameter is placed like the parameter.

        Raises:
          ValueError: an array belongs to no parameter, so nothing says where to place it.
        """
        leaves = jax.tree_util.tree_leaves_with_path(params)
        homes = {key_names(path): leaf.shape for path, leaf in leaves}

        def sharding(path: Any, leaf: Any) -> NamedSharding:
            names = key_names(path)
            home = parameter_of(names, homes)
            if home is not None and homes[home] == leaf.shape:
                return NamedSharding(self.mesh, self.spec(home, leaf.shape))
            if leaf.ndim:
                raise ValueError(f"no sharding is stated for {'/'.join(names)} {leaf.shape}")
            return self.whole

        return jax.tree_util.tree_map_with_path(sharding, opt_state)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Makes this mesh and these rules known to the modules' own constraints on activations."""
        rules = tuple((name, axes or None) for name, axes in self.rules.items())
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(rules):
            yield


def parameter_of(
    path: tuple[str, ...], params: Container[tuple[str, ...]]
) -> tuple[str, ...] | None:
    """The parameter that an array of an optimizer's state belongs to: the one whose path ends `path`; None if none does."""
    return next((path[at:] for at in range(len(path)) if path[at:] in params), None)


def make_layout(
    config: MeshConfig, axes_of: AxesOf, devices: Sequence[Any] | None = None
) -> Layout:
    """The layout of a config over these devices, or over those of its mesh."""
    return Layout(make_mesh(config, devices), parse_rules(config.rules), axes_of)


def key_names(path: Any) -> tuple[str, ...]:
    """A JAX key path as plain names: dictionary keys, field names and indices."""
    return tuple(
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path
    )


def place(tree: Any, shardings: Any) -> Any:
    """Puts host arrays (or arrays of this process's devices) where they belong; in new buffers, never shared ones.

    Every process passes the same values and puts its own pieces of them.
    """

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index].copy())

    return jax.tree.map(put, tree, shardings)


def own_share(layout: Layout, batch_size: int) -> Share:
    """Which rows of every batch this process must provide; processes whose devices hold the same rows provide the same.

    Raises:
      UserError: the batch does not divide over the devices.
    """
    check_divides(layout, batch_size)
    places = layout.batch.addressable_devices_indices_map((batch_size,)).values()
    size = batch_size // layout.ways
    starts = {index[0].indices(batch_size)[0] // size for index in places if index is not None}
    return _in_large_blocks(Share(tuple(sorted(starts)), layout.ways))


def _in_large_blocks(share: Share) -> Share:
    """The same share by one block if its blocks follow one another and are one of several equal parts of the batch."""
    first, held = share.blocks[0], len(share.blocks)
    together = share.blocks == tuple(range(first, first + held))
    if together and share.of % held == 0 and first % held == 0:
        return Share((first // held,), share.of // held)
    return share


def check_divides(layout: Layout, rows: int) -> None:
    """Refuses a batch that does not divide over the devices.

    Raises:
      UserError: the rows do not divide over the devices.
    """
    if rows % layout.ways:
        raise UserError(
            f"a batch of {rows} rows does not divide over {layout.ways} devices: change the batch size or mesh.data"
        )


def place_batch(batch: Any, layout: Layout, share: Share = WHOLE) -> Any:
    """Puts this process's share of a batch onto the mesh; the shares of all processes form one batch.

    Args:
      batch: host arrays [rows of the share, ...].
      layout: the layout that says how batches are split.
      share: from `own_share`.

    Raises:
      UserError: the batch does not divide over the devices.
    """

    def put(leaf: np.ndarray) -> jax.Array:
        own = leaf.shape[0]
        rows = share.whole(own)
        check_divides(layout, rows)

        def piece(place: Any) -> np.ndarray:
            start, stop, _ = place[0].indices(rows)
            first = share.place(start, own)
            return leaf[first : first + stop - start]

        return jax.make_array_from_callback((rows, *leaf.shape[1:]), layout.batch, piece)

    return jax.tree.map(put, batch)
