"""Writes a model in memory as a directory that `transformers` loads and `weights.load` reads back bit for bit."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from safetensors.numpy import save_file

from delrec_jax.errors import UserError
from delrec_jax.files import whole
from delrec_jax.language.hub import INDEX_FILE, TOKENIZER_FILES, WEIGHTS_FILE
from delrec_jax.language.weight_names import Leaf, Names
from delrec_jax.language.weights import HeldTensor, held_tensors

PROMPT_FILE = "soft_prompt.safetensors"


def export_model(
    params: dict[str, Any],
    directory: Path,
    *,
    wanted: list[Leaf],
    names: Names,
    settings: Mapping[str, dict[str, Any]],
    prompt: Float[Array, "K D"] | None = None,
    tokenizer_dir: Path | None = None,
    max_shard_bytes: int = 2 * 10**9,
) -> None:
    """Writes config, weights and tokenizer; the directory appears complete or not at all.

    For one process: if several hold the model, gather it in one of them first.

    Args:
      params: the base parameters, adapters merged, in either layout of `layer_stacking`; their types are kept.
      directory: must be empty or not exist yet.
      wanted: the leaves of the model.
      names: the family's names.
      settings: what to write into `config.json` and other JSON files, by the file's name.
      prompt: a soft prompt, written next to the model as `soft_prompt.safetensors`.
      tokenizer_dir: where tokenizer files are copied from; None = none are written.
      max_shard_bytes: larger weights are split into several files with an index; about what the host holds at once.

    Raises:
      UserError: `directory` is not empty, or `tokenizer_dir` holds no tokenizer.
      ValueError: the parameters are not the wanted leaves.
    """
    directory = Path(os.path.realpath(directory))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: already exists; remove it, or export to another directory")
    copied = _tokenizer_files(tokenizer_dir)
    tensors = _named(params, wanted, names)
    with whole(directory) as partial:
        partial.mkdir()
        _write_weights(tensors, partial, max_shard_bytes)
        for file_name, value in settings.items():
            _write_json(partial / file_name, value)
        if prompt is not None:
            save_file({"prompt": np.array(jax.device_get(prompt))}, partial / PROMPT_FILE)
        for file in copied:
            shutil.copyfile(file, partial / file.name)


def _tokenizer_files(directory: Path | None) -> list[Path]:
    if directory is None:
        return []
    files = [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]
    if not files:
        raise UserError(f"{directory}: no tokenizer there (none of {', '.join(TOKENIZER_FILES)})")
    return files


def _named(
    params: dict[str, Any], wanted: list[Leaf], names: Names
) -> dict[str, tuple[HeldTensor, bool]]:
    """Returns the tensors by Hugging Face's names, and whether each is transposed there."""
    found = {}
    for tensor in held_tensors(params):
        name, transposed = names.hf_name(tensor.path)
        found[name] = (tensor, transposed)
    shapes = {name: t.shape[::-1] if turned else t.shape for name, (t, turned) in found.items()}
    expected = {name: leaf.stored_shape for leaf in wanted for name in leaf.names}
    if differing := sorted(dict(shapes.items() ^ expected.items())):
        raise ValueError(f"the parameters are not those of the config: {', '.join(differing)}")
    return found


def _shards(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """Groups the names, in order, by at most `limit` bytes (a larger tensor has a group of its own)."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    return groups


def _write_weights(
    tensors: dict[str, tuple[HeldTensor, bool]], directory: Path, limit: int
) -> None:
    """Writes `model.safetensors`, or numbered files and their index, with one file in memory at a time."""
    sizes = {
        name: int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
        for name, (tensor, _) in sorted(tensors.items())
    }
    groups = _shards(sizes, limit)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = WEIGHTS_FILE
        if len(groups) > 1:
            file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        arrays = {name: _as_stored(*tensors[name]) for name in names}
        save_file(arrays, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(groups) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        _write_json(directory / INDEX_FILE, index)


def _as_stored(tensor: HeldTensor, transposed: bool) -> np.ndarray:
    """Returns the tensor as PyTorch stores it; safetensors writes the buffer, so it must be in C order."""
    value = tensor.fetch()
    return np.ascontiguousarray(value.T if transposed else value)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
