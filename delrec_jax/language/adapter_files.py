"""Adapters and soft prompt without the base model, as a portable directory that names the base model by hash.

    DIR/adapter.safetensors   adapters/PATH/{A,E,B} and prompt; one path per block, whether or not layers are scanned
    DIR/adapter.json          base model, AdaLoRA's settings, rank pattern, prompt length, digests of the tensors and of itself

Each file appears complete or not at all. The JSON is written last and holds the digest of the tensors, so loading detects
a save that was interrupted between the two files, and files that come from different saves.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from delrec_jax.errors import UserError, one_line
from delrec_jax.files import file_hash, json_hash, whole, write_text
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.layer_stacking import unstack_layers

Tree = dict[str, Any]
FORMAT = "delrec-adapter-1"
_AGAIN = "copy the directory again from where it was made, or save the adapter again"


class SavedAdapter(NamedTuple):
    """The contents of an adapter directory.

    Attributes:
      adapters: NumPy arrays `A` [in, R], `E` [R] and `B` [R, out] at the path of each adapted projection, unstacked.
      prompt: the soft prompt; None if the adapter was trained without one.
      config: AdaLoRA's settings; rank and alpha are part of the function that the adapters compute.
    """

    adapters: Tree
    prompt: Float[np.ndarray, "K D"] | None
    config: AdaLoRAConfig


def save_adapter(
    path: Path,
    *,
    adapters: Tree,
    prompt: Float[Array, "K D"] | None,
    config: AdaLoRAConfig,
    base_hash: str,
    base_name: str,
    rank_pattern: Mapping[str, int],
) -> None:
    """Writes the directory `path`, replacing an older adapter if there is one.

    Masked triplets are kept: their E is zero, but further training may need their A and B.

    Args:
      path: the directory; created along with its parents.
      adapters: the triplets, in either layout of `layer_stacking`.
      prompt: the soft prompt that they were trained with.
      config: AdaLoRA's settings.
      base_hash: hash of the base parameters (`weights.params_hash`).
      base_name: name of the base model, for human readers.
      rank_pattern: number of triplets in use by path (`rank_allocation.ranks_in_use`), for human readers.
    """
    tensors = traverse_util.flatten_dict({"adapters": unstack_layers(adapters)}, sep="/")
    if prompt is not None:
        tensors["prompt"] = prompt
    arrays = {name: np.asarray(jax.device_get(x), order="C") for name, x in tensors.items()}
    with whole(path / "adapter.safetensors") as partial:
        save_file(arrays, partial)
    description = {
        "format": FORMAT,
        "base": {"name": base_name, "hash": base_hash},
        "adalora": asdict(config),
        "rank_pattern": {name: int(rank) for name, rank in sorted(rank_pattern.items())},
        "prompt_length": 0 if prompt is None else len(prompt),
        "tensors_sha256": file_hash(path / "adapter.safetensors"),
    }
    description["description_sha256"] = _description_hash(description)
    write_text(path / "adapter.json", json.dumps(description, indent=1) + "\n")


def load_adapter(path: Path, *, base_hash: str) -> SavedAdapter:
    """Reads what `save_adapter` wrote, provided that the base model has this hash.

    Raises:
      UserError: a file is missing, damaged or from another save, or the adapter belongs to another base model.
    """
    file, tensors = path / "adapter.json", path / "adapter.safetensors"
    described = _read_description(file)
    if described.base_hash != base_hash:
        raise UserError(
            f"{file}: this adapter belongs to the base model {described.base_name!r} with hash {described.base_hash}, but "
            f"the base model here has hash {base_hash}: load that base model, or tune an adapter on this one"
        )
    if not tensors.is_file():
        raise UserError(f"{tensors}: no such file, although {file.name} is there; {_AGAIN}")
    if (found := file_hash(tensors)) != described.digest:
        raise UserError(
            f"{tensors}: damaged or from another save: its SHA-256 is {found}, {file.name} says {described.digest}; {_AGAIN}"
        )
    try:
        tree = traverse_util.unflatten_dict(load_file(tensors), sep="/")
        return SavedAdapter(tree["adapters"], tree.get("prompt"), described.config)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"{tensors}: no adapters in it ({one_line(error, most=200)}); {_AGAIN}"
        ) from error


class _Description(NamedTuple):
    base_name: str
    base_hash: str
    digest: str
    config: AdaLoRAConfig


def _read_description(file: Path) -> _Description:
    if not file.is_file():
        raise UserError(f"{file}: no such file; name a directory that an adapter was saved to")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: damaged ({one_line(error, most=200)}); {_AGAIN}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        told = found.get("format") if isinstance(found, dict) else None
        raise UserError(
            f"{file}: its format is {told!r}, and this version of delrec_jax reads {FORMAT!r}: it is no adapter, or one of "
            "another version; export it again with this version, or use that one"
        )
    try:
        base, settings = found["base"], found["adalora"]
        config = AdaLoRAConfig(**settings | {"targets": tuple(settings["targets"])})
        described = _Description(base["name"], base["hash"], found["tensors_sha256"], config)
    except (AttributeError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{file}: damaged ({error!r}); {_AGAIN}") from error
    stated = found.get("description_sha256")  # earlier versions did not write it
    if stated is not None and stated != _description_hash(found):
        raise UserError(f"{file}: damaged or changed since it was saved; {_AGAIN}")
    return described


def _description_hash(description: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of everything else that is described: alpha and ranks are part of what the adapters compute."""
    return json_hash(
        {key: value for key, value in description.items() if key != "description_sha256"}
    )
