"""What is stored of a training run: Orbax checkpoints while it trains, safetensors when it is done.

A checkpoint holds everything that the next step depends on (parameters, optimizer state, random stream, position in the data)
and the settings that it was made under. A run that was killed and resumed ends where it would have ended, bit for bit on CPU.
Orbax writes under a temporary name and then renames: an interrupted save is never mistaken for a good one. What was damaged
later is found by its sums (`checksums`): training goes on from the checkpoint before it, and a finished result is refused.
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
from delrec_jax.errors import UserError, differences, one_line, out_of_memory
from delrec_jax.files import file_hash, whole, write_text
from delrec_jax.training.checkpoint_manager import open_manager
from delrec_jax.training.checksums import (
    UNFINISHED,
    check_described,
    described,
    tidy,
    write_sums,
)

# Orbax is imported late: only what trains needs a checkpoint, and it takes half a second to load.

_FORMAT = 2  # increased when earlier versions could not read a checkpoint; the first had none
_ABOUT = ("parameters", "sha256")  # of a result's description: what its file of arrays holds


class Checkpoints:
    """Checkpoints of one training run in one directory: the two latest, the best by the validation metric, the last planned."""

    def __init__(self, directory: Path):
        """Opens (or creates) the directory; damaged checkpoints are moved out of it, and the user is told.

        Raises:
          UserError: the directory cannot be written, or it has damaged checkpoints only.
        """
        self.directory = directory
        self._writing = -1  # the step that is being written
        with self._told("opened"):
            tidy(directory)
            self._manager = open_manager(directory.absolute(), self._write_sums)

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

    def _write_sums(self) -> None:
        (folder,) = self.directory.glob(f"{self._writing}{UNFINISHED}*")
        write_sums(folder, self._writing)

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of all complete checkpoints, ascending."""
        return tuple(sorted(self._manager.all_steps()))

    @property
    def latest_step(self) -> int | None:
        """Step of the latest complete checkpoint; None if there is none."""
        latest: int | None = self._manager.latest_step()
        return latest

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is being written; may hang if another process does."""
        return bool(self._manager.is_saving_in_progress())

    def save(
        self,
        step: int,
        arrays: Any,
        meta: dict[str, Any],
        *,
        best: float | None = None,
        planned: bool = True,
    ) -> None:
        """Starts writing a checkpoint; `arrays` may change right after the call.

        Args:
          step: number of updates done.
          arrays: the parameters that train, and the optimizer state.
          meta: everything else, as JSON.
          best: its validation metric if that is the best so far; the checkpoint is then kept until a better one comes.
          planned: it is made in every run of these settings, and not because the process is told to end; the last of these is
            kept, so that a run which goes back goes to the same.

        Raises:
          UserError: this checkpoint or the previous one could not be written.
        """
        import orbax.checkpoint as ocp

        stored = {"format": _FORMAT, "arrays": described(arrays), "meta": meta}
        with self._told("written"):
            self._manager.wait_until_finished()
            self._writing = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(stored)
                ),
                metrics={
                    "value": float("-inf") if best is None else best,
                    "planned": step if planned else -1,
                },
            )

    def wait(self) -> None:
        """Waits until everything that was saved is on disk.

        Raises:
          UserError: a checkpoint could not be written.
        """
        with self._told("written"):
            self._manager.wait_until_finished()

    def forget_after(self, step: int) -> None:
        """Removes the checkpoints of later steps, which could not be saved again while they are there."""
        with self._told("removed"):
            for later in [saved for saved in self._manager.all_steps() if saved > step]:
                self._manager.delete(later)

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]] | None:
        """Reads a checkpoint and places it as `like` says, whatever devices it was saved from; None if there is none.

        Args:
          like: tree of arrays, or of `jax.ShapeDtypeStruct` with shardings.
          step: which checkpoint; None = the latest.

        Raises:
          UserError: the checkpoint cannot be read, or holds other arrays; names the first one that differs.
        """
        import orbax.checkpoint as ocp

        step = self.latest_step if step is None else step
        if step is None:
            return None
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        with self._told("read"):
            stored = self._manager.restore(
                step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
            )["meta"]
            meta = self._checked(step, stored, target)
            arrays = self._manager.restore(
                step, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(target))
            )["arrays"]
        return arrays, meta

    def _checked(self, step: int, stored: dict[str, Any], target: Any) -> dict[str, Any]:
        """What the caller stored with a checkpoint, once it is clear that its arrays are those of `target`."""
        place = self.directory / str(step)
        if "format" not in stored:
            return stored  # an earlier version's, which did not say what its arrays are
        if stored["format"] > _FORMAT:
            raise UserError(
                f"{place}: a checkpoint of format {stored['format']}, and this version of delrec_jax reads formats up to "
                f"{_FORMAT}: upgrade delrec_jax"
            )
        check_described(place, stored["arrays"], described(target))
        meta: dict[str, Any] = stored["meta"]
        return meta

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
                "if it is damaged, remove its folder: the run continues from the previous one"
                if done == "read" or isinstance(error, json.JSONDecodeError)
                else "free some space, or choose a folder that you can write to, and start the same command again: it "
                "continues from the last complete checkpoint"
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
    """Writes a tree of arrays as safetensors and its description as JSON next to it; the arrays' file appears last.

    The description also says which arrays the file holds, and its SHA-256.
    """
    flat = traverse_util.flatten_dict(jax.tree.map(on_host, tree), sep="/")
    if is_main():
        # safetensors stores arrays in row-major order only; a copy on the host may have another order.
        arrays = {name: np.asarray(value, order="C") for name, value in flat.items()}
        with whole(path) as partial:
            save_file(arrays, partial)
            about = {"parameters": described(arrays), "sha256": file_hash(partial)}
            told = json.dumps({**meta, **about}, indent=1, sort_keys=True)
            write_text(path.with_suffix(".json"), told)
    wait_for_all()


def load_tree(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `save_tree` wrote.

    Raises:
      UserError: the file is missing or damaged, or not the one that was written; names the file, or the parameter that differs.
    """
    try:
        flat = load_file(path)
        meta = dict(json.loads(path.with_suffix(".json").read_text()))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete the stage's directory and run the stage again"
        ) from error
    if "parameters" in meta:  # earlier versions did not say
        check_described(path, described(flat), meta["parameters"])
    if "sha256" in meta and file_hash(path) != meta["sha256"]:
        raise UserError(
            f"{path}: is not the file that was written (its SHA-256 differs from the one in {path.with_suffix('.json').name}); "
            "restore it from a copy, or delete the stage's directory and run the stage again"
        )
    told = {key: value for key, value in meta.items() if key not in _ABOUT}
    return traverse_util.unflatten_dict(flat, sep="/"), told


def _cause(error: BaseException) -> str:
    """The cause of an error in one short line, without the pages of text that the libraries in between add."""
    text = one_line(error)
    full = any(sign in text for sign in ("No space left", "RESOURCE_EXHAUSTED", "quota exceeded"))
    full = full and not out_of_memory(error)
    return ("the disk is full: " if full else "") + one_line(error, most=200)
