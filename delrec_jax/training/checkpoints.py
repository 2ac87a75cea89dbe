"""What is stored of a training run: Orbax checkpoints while it trains, safetensors when it is done.

A checkpoint holds everything that the next step depends on (parameters, optimizer state, random stream, position in the data)
and the settings that it was made under. A run that was killed and resumed ends where it would have ended, bit for bit on CPU.
Orbax writes under a temporary name and then renames: an interrupted save is never mistaken for a good one.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from delrec_jax.distributed import is_main, lost_another, on_host, wait_for_all
from delrec_jax.errors import UserError, differences, one_line
from delrec_jax.files import whole, write_text

# Orbax is imported late: only what trains needs a checkpoint, and it takes half a second to load.

_LATEST = 2  # the newest may be that of a run which is about to diverge


class Checkpoints:
    """Checkpoints of one training run in one directory: the two latest, and the best by the validation metric."""

    def __init__(self, directory: Path):
        """Opens (or creates) the directory.

        Raises:
          UserError: the directory cannot be written.
        """
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        self.directory = directory

        def value(metrics: Any) -> float:
            return float(metrics["value"])

        policy = AnyPreservationPolicy([LatestN(_LATEST), BestN(get_metric_fn=value, n=1)])
        options = ocp.CheckpointManagerOptions(
            best_fn=value,  # without it the metrics would not be stored
            preservation_policy=policy,
            enable_async_checkpointing=True,
            # Made in the background, a folder that cannot be made leaves threads that wait for five minutes, and with them the
            # process after its last word.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
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
            # The error that ended the run is the one to report; a failed last save is only logged.
            logging.getLogger(__name__).warning("%s: %s", self.directory, _cause(error))

    @property
    def latest_step(self) -> int | None:
        """Step of the latest complete checkpoint; None if there is none."""
        latest: int | None = self._manager.latest_step()
        return latest

    def save(
        self, step: int, arrays: Any, meta: dict[str, Any], *, best: float | None = None
    ) -> None:
        """Starts writing a checkpoint; `arrays` may change right after the call.

        Args:
          step: number of updates done.
          arrays: the parameters that train, and the optimizer state.
          meta: everything else, as JSON.
          best: its validation metric if that is the best so far; the checkpoint is then kept until a better one comes.

        Raises:
          UserError: this checkpoint or the previous one could not be written.
        """
        import orbax.checkpoint as ocp

        with self._told("written"):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
                ),
                metrics={"value": float("-inf") if best is None else best},
            )

    def wait(self) -> None:
        """Waits until everything that was saved is on disk.

        Raises:
          UserError: a checkpoint could not be written.
        """
        with self._told("written"):
            self._manager.wait_until_finished()

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]] | None:
        """Reads a checkpoint and places it as `like` says, whatever devices it was saved from; None if there is none.

        Args:
          like: tree of arrays, or of `jax.ShapeDtypeStruct` with shardings.
          step: which checkpoint; None = the latest.

        Raises:
          UserError: the checkpoint cannot be read.
        """
        import orbax.checkpoint as ocp

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
        """Turns an error from inside the block into a `UserError` of one line with the remedy."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if lost_another(error):
                raise
            remedy = (
                "free some space, or choose a folder that you can write to, and start the same command again: it continues "
                "from the last complete checkpoint"
                if done != "read"
                else "if it is damaged, remove its folder: the run continues from the previous one"
            )
            raise UserError(
                f"{self.directory}: a checkpoint cannot be {done} ({_cause(error)}); {remedy}"
            ) from error


def check_identity(directory: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses a checkpoint that belongs to another experiment.

    Args:
      directory: the directory of the checkpoints, for the message.
      stored: what the checkpoint depends on, by key.
      wanted: what this run depends on, by key.

    Raises:
      UserError: names the keys that differ.
    """
    keys = sorted({*stored, *wanted})
    changed = differences({key: (stored.get(key), wanted.get(key)) for key in keys})
    if changed:
        raise UserError(
            f"{directory}: its checkpoint belongs to another experiment: {changed}; restore what it was made with, or "
            "remove the folder to start from scratch"
        )


def save_tree(path: Path, tree: Any, meta: dict[str, Any]) -> None:
    """Writes a tree of arrays as safetensors and its description as JSON next to it; the arrays' file appears last."""
    flat = traverse_util.flatten_dict(jax.tree.map(on_host, tree), sep="/")
    if is_main():
        # safetensors stores arrays in row-major order only; a copy on the host may have another order.
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
    """The cause of an error in one short line, without the pages of text that the libraries in between add."""
    text = one_line(error)
    full = any(sign in text for sign in ("No space left", "RESOURCE_EXHAUSTED", "quota exceeded"))
    return ("the disk is full: " if full else "") + one_line(error, most=200)
