"""Loads pretrained T5 weights from a Hugging Face directory directly onto the devices, and identifies them by a hash.

No complete tensor is in host memory unless a device needs all of it: each device's piece is read from the file separately,
transposed and converted, and transferred before the next leaf is read.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Sharding, SingleDeviceSharding
from safetensors import safe_open

from delrec_jax.distributed import on_host
from delrec_jax.errors import UserError
from delrec_jax.language.hub import CONFIG_FILE, StoredTensor, read_json, stored_tensors
from delrec_jax.language.layers import STACKED
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.weight_names import (
    HEAD_NAME,
    IGNORED,
    TABLE_ALIASES,
    TABLE_NAME,
    Leaf,
    TreePath,
    leaves,
    unrolled_paths,
)

_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_ACTIVATION = {"gated-gelu": "gelu_new", "relu": "relu"}
_AT_ONCE = 1 << 24  # elements in memory while values are hashed or compared
_LISTED = 3  # tensors of each kind that an error names


def read_config(directory: Path) -> T5Config:
    """Returns the shape of the model in a directory; override `dtype`, `remat` etc. with `dataclasses.replace`.

    Reads the raw `config.json`, because `transformers` 5 changes `tie_word_embeddings` on reading. The weights determine
    whether the head is tied (no `lm_head.weight`: tied); the file determines whether the decoder's output is scaled.

    Raises:
      UserError: no config.json, one of another model, or one without the sizes.
    """
    file = directory / CONFIG_FILE
    raw = read_json(file)
    if raw.get("model_type", "t5") != "t5":
        raise UserError(
            f"{file}: model_type is {raw['model_type']!r}; only t5 (T5 v1.0, v1.1, Flan-T5) can be read"
        )
    for key in _SIZES:
        if not isinstance(raw.get(key), int) or raw[key] < 1:
            raise UserError(f"{file}: {key} is {raw.get(key)!r}; download the model's own file")
    # v1.0 files lack `tie_word_embeddings`, which then counts as true. `transformers` 5 has its own key.
    scaled = raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings") is not False)
    return T5Config(
        **{key: raw[key] for key in _SIZES},
        num_decoder_layers=raw.get("num_decoder_layers") or raw["num_layers"],
        relative_attention_num_buckets=raw.get("relative_attention_num_buckets", 32),
        relative_attention_max_distance=raw.get("relative_attention_max_distance", 128),
        dropout_rate=raw.get("dropout_rate", 0.1),
        layer_norm_epsilon=raw.get("layer_norm_epsilon", 1e-6),
        feed_forward_proj=_feed_forward(file, raw),
        tie_word_embeddings=HEAD_NAME not in stored_tensors(directory),
        scale_decoder_outputs=bool(scaled),
    )


def _feed_forward(file: Path, raw: dict[str, Any]) -> str:
    """`relu` or `gated-gelu`; a file without the key means `relu` unless it says `is_gated_act`."""
    form: str = raw.get("feed_forward_proj", "gated-gelu" if raw.get("is_gated_act") else "relu")
    activation = _ACTIVATION.get(form)
    if activation is None or raw.get("dense_act_fn", activation) != activation:
        raise UserError(
            f"{file}: feed_forward_proj is {form!r} with dense_act_fn {raw.get('dense_act_fn')!r}; only 'relu' with 'relu' "
            "(T5 v1.0) and 'gated-gelu' with 'gelu_new' (v1.1, Flan) can be read"
        )
    return form


def load(directory: Path, config: T5Config, shardings: Any = None) -> dict[str, Any]:
    """Loads the parameters of a model directory onto their devices.

    Args:
      directory: see `hub.resolve`.
      config: the result of `read_config`, with `param_dtype` and `scan_layers` as wanted.
      shardings: one `jax.sharding.Sharding` for all, or a tree of them like the parameters; None = the first device.

    Returns:
      The tree that `T5(config)` takes, in its layout and types.

    Raises:
      UserError: tensors are missing, unused or of another shape, or files cannot be read.
    """
    wanted = leaves(config)
    tensors = _known(stored_tensors(directory))
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
        target[...] = value.T if leaf.transposed else value
    return out


def _known(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Returns the tensors by the names that the model uses: one token table, and nothing in `IGNORED`.

    Raises:
      UserError: the token table is stored under several names with different values.
    """
    tables = [tensors[name] for name in (TABLE_NAME, *TABLE_ALIASES) if name in tensors]
    for other in tables[1:]:
        if not _equal(tables[0], other):
            raise UserError(
                f"{other.file}: {other.name} differs from {tables[0].name}, but T5 has one token table; download the "
                "model again"
            )
    beside = IGNORED | {*TABLE_ALIASES}
    known = {name: tensor for name, tensor in tensors.items() if name not in beside}
    return known | ({TABLE_NAME: tables[0]} if tables else {})


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
    """Whether two stored matrices hold the same values, a few rows at a time."""
    if first.shape != second.shape:
        return False
    rows = max(1, _AT_ONCE // first.shape[1])
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
      params: the base parameters in either layout of layers.py, without adapters.

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
