"""What survives: Orbax checkpoints while training, safetensors when it is done.

A checkpoint holds everything that the next step depends on (what trains, the optimizer, the random stream, the place in the
data) and the settings that it was made under. A killed and resumed run ends where it would have ended, bit for bit on CPU.
Orbax writes it under a temporary name and renames it: an interrupted save is never taken for a good one.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from delrec_jax.distributed import is_main, lost_another, on_host, wait_for_all
from delrec_jax.errors import UserError, differences, one_line
from delrec_jax.files import whole, write_text

_LATEST = 2  # the last one may have been made of numbers that are about to diverge


class Checkpoints:
    """The checkpoints of one training run in one directory: the two latest, and the best by the validation metric."""

    def __init__(self, directory: Path):
        """Opens (or creates) the directory.

        Raises:
          UserError: it cannot be written.
        """
        self.directory = directory

        def value(metrics: Any) -> float:
            return float(metrics["value"])

        policy = AnyPreservationPolicy([LatestN(_LATEST), BestN(get_metric_fn=value, n=1)])
        options = ocp.CheckpointManagerOptions(
            best_fn=value,  # without it the metrics would not be stored
            preservation_policy=policy,
            enable_async_checkpointing=True,
        )
        with self._told("opened"):
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:
            with self._told("written"):
                self._manager.close()
            return
        try:
            self._manager.close()
        except Exception as error:
            # What ended the run is the news; that the last save failed as well comes second.
            logging.getLogger(__name__).warning("%s: %s", self.directory, _cause(error))

    @property
    def latest_step(self) -> int | None:
        """Of the latest whole checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(
        self, step: int, arrays: Any, meta: dict[str, Any], *, best: float | None = None
    ) -> None:
        """Starts to write a checkpoint; `arrays` may change right after the call.

        Args:
          step: updates done.
          arrays: what trains, and the optimizer.
          meta: the rest, as JSON.
          best: its validation metric where that is the best so far: it stays until a better one comes.

        Raises:
          UserError: this one or the one before could not be written.
        """
        with self._told("written"):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
                ),
                metrics={"value": float("-inf") if best is None else best},
            )

    def wait(self) -> None:
        """Returns when all that was saved is on disk.

        Raises:
          UserError: it could not be written.
        """
        with self._told("written"):
            self._manager.wait_until_finished()

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]] | None:
        """A checkpoint, placed as `like` says, whatever devices it was saved from; None where there is none.

        Args:
          like: tree of arrays, or of `jax.ShapeDtypeStruct` with shardings.
          step: which; None = the latest.

        Raises:
          UserError: it cannot be read.
        """
        step = self.latest_step if step is None else step
        if step is None:
            return None
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        with self._told("read"):
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()
                ),
            )
        return restored["arrays"], restored["meta"]

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        """Whatever the file system says, in one line with the remedy."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if lost_another(error):
                raise
            remedy = (
                "free some space, or give a folder that you can write to, and start the same command again: it goes on from "
                "the last whole checkpoint"
                if done != "read"
                else "if it is damaged, remove its folder: the run goes on from the one before"
            )
            raise UserError(
                f"{self.directory}: a checkpoint cannot be {done} ({_cause(error)}); {remedy}"
            ) from error


def check_identity(directory: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses a checkpoint that another experiment made.

    Args:
      directory: of the checkpoints, for the message.
      stored: what the checkpoint was made under, by key.
      wanted: what this run is made under.

    Raises:
      UserError: naming the keys that differ.
    """
    keys = sorted({*stored, *wanted})
    changed = differences({key: (stored.get(key), wanted.get(key)) for key in keys})
    if changed:
        raise UserError(
            f"{directory}: its checkpoint belongs to another experiment: {changed}; bring back what it was made with, or "
            "remove the folder to begin anew"
        )


def save_tree(path: Path, tree: Any, meta: dict[str, Any]) -> None:
    """Writes a tree of arrays as safetensors, its description beside it as JSON; both appear at once or not at all."""
    flat = traverse_util.flatten_dict(jax.tree.map(on_host, tree), sep="/")
    if is_main():
        # The format knows rows after rows only; a copy on the host may keep another order.
        arrays = {name: np.asarray(value, order="C") for name, value in flat.items()}
        with whole(path) as partial:
            save_file(arrays, partial)
            write_text(path.with_suffix(".json"), json.dumps(meta, indent=1, sort_keys=True))
    wait_for_all()


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


def _cause(error: BaseException) -> str:
    """The cause, without the pages that the libraries in between make of it."""
    text = one_line(error)
    full = any(sign in text for sign in ("No space left", "RESOURCE_EXHAUSTED", "quota exceeded"))
    return ("the disk is full: " if full else "") + one_line(error, most=200)
