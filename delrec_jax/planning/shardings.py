"""Where every leaf of a tree is placed, as rows of a table: equal leaves of repeated blocks share a row."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from delrec_jax.training.sharding import Layout, key_names, parameter_of
from delrec_jax.training.steps import state_shardings
from delrec_jax.training.task import Task

_NUMBERED = re.compile(r"(?<=^block_)\d+$|(?<=^blocks_)\d+$")
Axes = tuple[str | None, ...]
Path = tuple[str, ...]
Described = tuple[Path, tuple[str, ...], Axes]  # a leaf's name, kinds and axes, as in a `Row`


@dataclass(frozen=True)
class Row:
    """Leaves with the same shape and placement.

    Attributes:
      name: path, with the number of a block as *; for the optimizer's state, the path of the parameter that it belongs to.
      kinds: what the optimizer keeps for that parameter, such as `mu`.
      count: number of leaves.
      shape: shape of each.
      dtype: type of each.
      axes: names of its axes.
      spec: mesh axes that these are split over.
      size: bytes of all leaves together.
      per_device: bytes of all leaves on each device.
      whole: axes that a rule would split but whose size does not divide.
    """

    name: str
    kinds: tuple[str, ...]
    count: int
    shape: tuple[int, ...]
    dtype: str
    axes: Axes
    spec: str
    size: int
    per_device: int
    whole: tuple[str, ...]


def sharding_rows(planned: Task) -> dict[str, list[Row]]:
    """Returns the tables of a step: `frozen`, `trains`, `optimizer`, `batch`."""
    layout, state = planned.layout, planned.state
    homes = state_shardings(state, layout)
    batch = jax.tree.map(lambda leaf: layout.batch, planned.batch)
    params = {key_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)}

    def kept(path: Path, shape: tuple[int, ...]) -> Described:
        """Describes a leaf of the optimizer: its parameter, what is kept for it, and the parameter's axes."""
        home = parameter_of(path, params)
        if home is None or not shape:
            return path, (), (None,) * len(shape)
        return home, path[: -len(home)][-1:], layout.axes_of(home, shape)

    def stored(path: Path, shape: tuple[int, ...]) -> Described:
        return path, (), layout.axes_of(path, shape)

    def read(path: Path, shape: tuple[int, ...]) -> Described:
        return path, (), ("batch", *(None,) * (len(shape) - 1))

    return {
        "frozen": _table(planned.frozen, layout.of(planned.frozen), layout, stored),
        "trains": _table(state.params, homes.params, layout, stored),
        "optimizer": _table(state.opt_state, homes.opt_state, layout, kept),
        "batch": _table(planned.batch, batch, layout, read),
    }


def bytes_per_device(rows: list[Row]) -> int:
    """Returns the bytes per device of an entire table."""
    return sum(row.per_device for row in rows)


def _table(
    tree: Any,
    shardings: Any,
    layout: Layout,
    describe: Callable[[Path, tuple[int, ...]], Described],
) -> list[Row]:
    rows: dict[Any, Row] = {}
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings), strict=True):
        shape, dtype = tuple(leaf.shape), np.dtype(leaf.dtype)
        home, kinds, axes = describe(key_names(path), shape)
        row = Row(
            name="/".join(_NUMBERED.sub("*", name) for name in home),
            kinds=kinds,
            count=1,
            shape=shape,
            dtype=dtype.name,
            axes=axes,
            spec=_spec(sharding.spec),
            size=int(np.prod(shape)) * dtype.itemsize,
            per_device=int(np.prod(sharding.shard_shape(shape))) * dtype.itemsize,
            whole=tuple(_kept_whole(axes, shape, layout)),
        )
        alike = (row.name, row.shape, row.dtype, row.spec)
        rows[alike] = _together(rows[alike], row) if alike in rows else row
    return list(rows.values())


def _together(a: Row, b: Row) -> Row:
    return replace(
        a,
        kinds=tuple(dict.fromkeys(a.kinds + b.kinds)),
        count=a.count + b.count,
        size=a.size + b.size,
        per_device=a.per_device + b.per_device,
    )


def _spec(spec: Any) -> str:
    places = ["+".join([part] if isinstance(part, str) else part) if part else "-" for part in spec]
    return f"P({', '.join(places)})"


def _kept_whole(axes: Axes, shape: tuple[int, ...], layout: Layout) -> Iterator[str]:
    """Describes each axis that stays unsplit although a rule would split it, so that this is never silent."""
    for name, size in zip(axes, shape, strict=True):
        ways = layout.ways_of(name)
        if ways > 1 and size % ways:
            yield f"{name} {size} does not divide over {ways}: stays whole"
