"""Trees of arrays in safetensors files, whose names and shapes are checked before they are used."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from delrec_jax.distributed import on_host
from delrec_jax.errors import UserError
from delrec_jax.hub.manifest import remedy

Tree = dict[str, Any]


def write_tensors(file: Path, tree: Tree) -> None:
    """Writes a tree; empty branches are left out."""
    flat = traverse_util.flatten_dict(jax.tree.map(on_host, tree), sep="/")
    save_file({name: np.asarray(value, order="C") for name, value in flat.items()}, file)


def read_tensors(file: Path) -> Tree:
    """Reads a tree, on the host.

    Raises:
      UserError: the file cannot be read, or a tensor has values that are not finite.
    """
    try:
        flat = load_file(file)
        found: Tree = traverse_util.unflatten_dict(flat, sep="/")
    except (OSError, SafetensorError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{file}: cannot be read ({error}); {remedy(file)}") from error
    for name, value in flat.items():
        if not np.isfinite(value).all():
            raise UserError(f"{file}: {name} has values that are not finite; {remedy(file)}")
    return found


def check_shapes(file: Path, found: Tree, expected: Tree) -> None:
    """Checks a tree against the shapes that the config asks for.

    Args:
      file: where it is from, for messages.
      found: arrays.
      expected: arrays or shapes.

    Raises:
      UserError: a tensor is missing, unknown, or of another shape.
    """
    if not isinstance(found, dict):
        raise UserError(
            f"{file}: there is an array where a system's tensors belong; {remedy(file)}"
        )
    there, wanted = (
        {
            name: tuple(leaf.shape)
            for name, leaf in traverse_util.flatten_dict(tree, sep="/").items()
        }
        for tree in (found, expected)
    )
    for name in sorted(there.keys() | wanted.keys()):
        if there.get(name) != wanted.get(name):
            asked = _told(wanted.get(name))
            raise UserError(
                f"{file}: {name} is {_told(there.get(name))}, but by config.json it is {asked}; {remedy(file)}"
            )


def _told(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"an array {list(shape)}"
