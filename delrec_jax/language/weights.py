"""Loads pretrained weights from a Hugging Face directory directly onto the devices, and identifies them by a hash.

No more is in host memory than what this process's devices need of one leaf: each device's piece is read from the file
separately, transposed and converted, and all are transferred before the next leaf is read.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Sharding, SingleDeviceSharding
from safetensors import safe_open

from delrec_jax.distributed import on_host
from delrec_jax.errors import UserError
from delrec_jax.language.hub import StoredTensor, stored_tensors
from delrec_jax.language.layer_stacking import STACKED
from delrec_jax.language.weight_names import Leaf, Names, TreePath, unrolled_paths

_AT_ONCE = 1 << 24  # elements in memory while values are hashed or compared
_BAND = 16  # rows that are transposed at a time
_LISTED = 3  # tensors of each kind that an error names


def load(
    directory: Path, wanted: list[Leaf], names: Names, shardings: Any = None
) -> dict[str, Any]:
    """Loads the parameters of a model directory onto their devices.

    Args:
      directory: see `hub.resolve`.
      wanted: the model's leaves, in the layout and types that are wanted.
      names: the family's names.
      shardings: one `jax.sharding.Sharding` for all, or a tree of them like the parameters; None = the first device.

    Returns:
      The tree of these leaves.

    Raises:
      UserError: tensors are missing, unused or of another shape, or files cannot be read.
    """
    tensors = _known(stored_tensors(directory), names)
    _require_fit(directory, tensors, wanted)
    if shardings is None:
        shardings = SingleDeviceSharding(jax.devices()[0])
    if isinstance(shardings, Sharding):
        places = {leaf.path: shardings for leaf in wanted}
    else:
        places = traverse_util.flatten_dict(shardings)
    params: dict[str, Any] = traverse_util.unflatten_dict(
        {leaf.path: _load_leaf(leaf, tensors, places[leaf.path]) for leaf in wanted}
    )
    return params


def _load_leaf(leaf: Leaf, tensors: dict[str, StoredTensor], sharding: Sharding) -> jax.Array:
    """Reads the pieces of one leaf that this process's devices need.

    Files are opened for one leaf at a time, because pages of an open file count as memory of this process.
    """
    sources = [tensors[name] for name in leaf.names]
    pieces: dict[tuple[tuple[int, int], ...], np.ndarray] = {}
    with ExitStack() as stack:
        opened = {
            file: stack.enter_context(safe_open(file, framework="np"))
            for file in {source.file for source in sources}
        }
        stored = [opened[source.file].get_slice(source.name) for source in sources]

        def piece(index: Any) -> np.ndarray:  # one slice per axis
            parts = zip(index, leaf.shape, strict=True)
            bounds = tuple(part.indices(size)[:2] for part, size in parts)
            if bounds not in pieces:  # devices that hold the same piece share one read
                pieces[bounds] = _read(leaf, stored, bounds)
                _require_finite(leaf, pieces[bounds], sources[0].file)
            return pieces[bounds]

        array = jax.make_array_from_callback(leaf.shape, sharding, piece)
        # If transfers are slower than the disk, pieces that wait for them would pile up on the host.
        return cast(jax.Array, array.block_until_ready())


def _read(leaf: Leaf, stored: Sequence[Any], bounds: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns the part of the leaf within `bounds` (start and stop of each axis), transposed and converted."""
    out = np.empty([stop - start for start, stop in bounds], leaf.dtype)
    layers = range(*bounds[0]) if leaf.stacked else [0]
    inner = bounds[1:] if leaf.stacked else bounds
    window = tuple(slice(*part) for part in (reversed(inner) if leaf.transposed else inner))
    for target, layer in zip(out if leaf.stacked else [out], layers, strict=True):
        value = stored[layer][window]
        if leaf.transposed:
            _transpose(value, target)
        else:
            target[...] = value
    return out


def _require_finite(leaf: Leaf, values: np.ndarray, file: Path) -> None:
    """Refuses NaN and infinity, of which a model makes NaN everywhere.

    Raises:
      UserError: names the tensor.
    """
    flat = values.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        if not np.isfinite(flat[start : start + _AT_ONCE]).all():
            raise UserError(
                f"{file}: {leaf.names[0]} has values that are not finite (NaN or infinity): it is damaged, or they do not "
                f"fit into {leaf.dtype}; download it again, or use another param_dtype"
            )


def _transpose(value: np.ndarray, target: np.ndarray) -> None:
    """Converts and transposes in bands of rows that fit in the processor's cache: twice as fast as all at once."""
    for start in range(0, len(value), _BAND):
        band = value[start : start + _BAND].astype(target.dtype)
        target[:, start : start + _BAND] = band.T


def _known(tensors: dict[str, StoredTensor], names: Names) -> dict[str, StoredTensor]:
    """Returns the tensors that the model uses, by the names in its table.

    Raises:
      UserError: a tensor is stored under several names with different values.
    """
    known: dict[str, StoredTensor] = {}
    # The table's own names come first.
    for tensor in sorted(tensors.values(), key=lambda one: names.canonical(one.name) != one.name):
        if (name := names.canonical(tensor.name)) is None:
            continue
        first = known.setdefault(name, tensor)
        if first is not tensor and not _equal(first, tensor):
            raise UserError(
                f"{tensor.file}: {tensor.name} differs from {first.name}, but {names.model} has one such tensor; "
                "download the model again"
            )
    return known


def _require_fit(directory: Path, known: dict[str, StoredTensor], wanted: list[Leaf]) -> None:
    """Raises a UserError that counts what is missing, unused or misshapen, and lists the first few of each."""
    expected = {name: leaf.stored_shape for leaf in wanted for name in leaf.names}
    faults = {
        "missing": [f"{name} {[*shape]}" for name, shape in expected.items() if name not in known],
        "unused": [f"{name} {[*known[name].shape]}" for name in known if name not in expected],
        "misshapen": [
            f"{name} {[*known[name].shape]} instead of {[*shape]}"
            for name, shape in expected.items()
            if name in known and known[name].shape != shape
        ],
    }
    listed = [
        f"{len(names)} {kind} ({', '.join(names[:_LISTED])}{', ...' * (len(names) > _LISTED)})"
        for kind, names in faults.items()
        if names
    ]
    if listed:
        raise UserError(
            f"{directory}: the tensors do not fit the config: {'; '.join(listed)}; use the config.json that belongs to "
            "these files, or download the model again"
        )


def _equal(first: StoredTensor, second: StoredTensor) -> bool:
    """Whether two stored tensors hold the same values, a few rows at a time."""
    if first.shape != second.shape:
        return False
    rows = max(1, _AT_ONCE // prod(first.shape[1:]))
    with (
        safe_open(first.file, framework="np") as one,
        safe_open(second.file, framework="np") as two,
    ):
        a, b = one.get_slice(first.name), two.get_slice(second.name)
        last = first.shape[0]  # get_slice raises past the end, where NumPy would stop
        parts = [slice(start, min(start + rows, last)) for start in range(0, last, rows)]
        return all(np.array_equal(a[part], b[part]) for part in parts)


class HeldTensor(NamedTuple):
    """A tensor of a tree in memory, at its unrolled path; `fetch` brings it to the host."""

    path: TreePath
    shape: tuple[int, ...]
    dtype: np.dtype
    fetch: Callable[[], np.ndarray]


def held_tensors(params: dict[str, Any]) -> Iterator[HeldTensor]:
    """Yields the tensors of a tree in either layout, layer by layer: unstacking the entire model would copy it."""
    for path, leaf in traverse_util.flatten_dict(params).items():
        if STACKED not in path:
            yield HeldTensor(path, leaf.shape, leaf.dtype, partial(_fetch, leaf))
            continue
        for layer, one in enumerate(unrolled_paths(path, leaf.shape)):
            fetch = partial(_fetch, leaf, layer)
            yield HeldTensor(one, leaf.shape[1:], leaf.dtype, fetch)


def _fetch(leaf: Any, layer: int | None = None) -> np.ndarray:
    """Returns the array, or one layer of it, on the host."""
    return on_host(leaf if layer is None else leaf[layer])


def params_hash(params: dict[str, Any]) -> str:
    """Returns a hash that identifies a parameter tree; saved adapters name their base model by it.

    Paths, shapes and values are hashed, in the unrolled layout and widened to float32. So neither the layout
    (`scan_layers`) nor the devices nor a wider type for the same values change the hash; rounding to fewer bits does,
    because it changes what the model computes.

    Args:
      params: the base parameters in either layout of `layer_stacking`, without adapters.

    Returns:
      A SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    for tensor in sorted(held_tensors(params), key=lambda held: held.path):
        digest.update(f"{'/'.join(tensor.path)} {[*tensor.shape]}\n".encode())
        values = tensor.fetch().reshape(-1)
        for start in range(0, values.size, _AT_ONCE):
            digest.update(values[start : start + _AT_ONCE].astype("<f4").tobytes())
    return digest.hexdigest()
