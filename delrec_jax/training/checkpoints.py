"""What survives: Orbax checkpoints while training, safetensors when it is done.

A checkpoint holds everything that the next step depends on (state, best parameters so far, data iterator, log), so a
killed and resumed run ends where it would have ended, bit for bit on CPU. Orbax writes it under a temporary name
and renames it: an interrupted save is never taken for a good one.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from delrec_jax.errors import UserError


class Checkpoints:
    """The checkpoints of one training run in one directory; the two latest are kept."""

    def __init__(self, directory: Path):
        """Opens (or creates) the directory."""
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc: object) -> None:
        self._manager.close()

    def save(self, step: int, arrays: Any, meta: dict[str, Any]) -> None:
        """Starts to write a checkpoint; `arrays` may change right after the call."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
            ),
        )

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The latest checkpoint, on the devices and in the types of `like`; None where there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()
            ),
        )
        return restored["arrays"], restored["meta"]


def save_tree(path: Path, tree: Any, meta: dict[str, Any]) -> None:
    """Writes a tree of arrays as safetensors, its description beside it as JSON; both appear at once or not at all."""
    flat = traverse_util.flatten_dict(jax.device_get(tree), sep="/")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: np.asarray(value, order="C") for name, value in flat.items()}, partial)
    path.with_suffix(".json").write_text(json.dumps(meta, indent=1, sort_keys=True))
    partial.rename(path)


def load_tree(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `save_tree` wrote.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        flat = load_file(path)
        meta = json.loads(path.with_suffix(".json").read_text())
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete the stage's directory and run the stage again"
        ) from error
    return traverse_util.unflatten_dict(flat, sep="/"), meta
