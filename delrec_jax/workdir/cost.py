"""What systems cost: the time to rank a user, the time of a training example, trained parameters, and peak memory.

cost.json, beside the records:

machine     backend, kind and number of devices, number of processes
memory      peak GiB so far of this process, and of its fullest device if the backend tells: of all stages that it ran
training    one row per training run: its folder and name in `metrics.jsonl`, steps, seconds in all, seconds and examples of the
            steps that could be timed (`training.watching`: without evaluations and compilations), trained parameters
systems     one row per system, teacher and seed: the folders of its training runs (`trained`); ranked users and passes; seconds
            of the first batch of every pass and of those in which something was compiled; seconds and users of all others.
            A hybrid's batch has the seconds of its parts too, although hybrids are ranked together and share them

These figures differ from run to run: nothing depends on them, and no table of a report shows them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import safe_open

from delrec_jax.errors import UserError, one_line
from delrec_jax.evaluation.systems import hybrid_parts
from delrec_jax.training.watching import device_memory_gib, process_memory_gib
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.ranking_times import RankingTimes
from delrec_jax.workdir.recommenders import PLAIN, Cell
from delrec_jax.workdir.workspace import Workspace

COST = "cost.json"


class Key(NamedTuple):
    """A system as the rank records name it."""

    system: str
    teacher: str
    seed: int


class Costs:
    """Collects the costs of one evaluation."""

    def __init__(self) -> None:
        self._systems: dict[Key, RankingTimes] = {}
        self._training: dict[Key, tuple[Path, ...]] = {}

    def add(self, key: Key, times: RankingTimes, *, trained: Sequence[Path] = ()) -> None:
        """Adds the times of ranking a system, perhaps under some of its protocols only.

        Args:
          key: the system.
          times: those of one or more passes.
          trained: the folders of the training runs that made it.
        """
        before = self._systems.get(key)
        self._systems[key] = times if before is None else before + times
        self._training[key] = tuple(trained)

    def write(self, folder: Path, *, root: Path) -> None:
        """Writes `cost.json`; folders of training runs are named relative to the workdir `root`."""
        trained = {key: self._trained(key) for key in self._systems}
        runs = dict.fromkeys(path for paths in trained.values() for path in paths)
        training = {path: row for path in runs if (row := _training_row(path, root))}
        systems = [
            {
                **key._asdict(),
                "trained": [training[path]["folder"] for path in trained[key] if path in training],
                "users": one.users // one.passes,
                "passes": one.passes,
                "first_seconds": one.first_seconds,
                "seconds": one.seconds,
                "timed_users": one.timed_users,
            }
            for key, one in self._systems.items()
        ]
        content = {
            "machine": {
                "backend": jax.default_backend(),
                "device": jax.devices()[0].device_kind,
                "devices": jax.device_count(),
                "processes": jax.process_count(),
            },
            "memory": {"process_gib": process_memory_gib(), "device_gib": device_memory_gib()},
            "training": list(training.values()),
            "systems": systems,
        }
        write_json(folder / COST, content)

    def _trained(self, key: Key) -> tuple[Path, ...]:
        """The folders of a system's training runs; of a hybrid, those of its parts."""
        own = [*self._training[key]]
        for part in hybrid_parts(key.system):
            own += self._training.get(key._replace(system=part), ())
        return tuple(dict.fromkeys(own))


def training_folders(ws: Workspace, cell: Cell, *, reads_parser: bool) -> tuple[Path, ...]:
    """Returns the folders of the training runs that made a recommender; one that was not trained has no files there.

    Args:
      ws: the workdir.
      cell: the recommender.
      reads_parser: whether its vectors are made from those of the parser of its seed.
    """
    if cell == recommenders.first_cell(ws.experiment):
        return (ws.folder("teach") / "model",)
    own = [recommenders.cell_folder(ws, cell)]
    if reads_parser:
        own.insert(0, ws.folder("parse") / f"seed-{cell.seed}" / "model")
    if recommenders.is_ensemble(ws.experiment, cell):
        plain = training_folders(ws, Cell(cell.name, cell.seed, PLAIN), reads_parser=False)
        own = [*plain, *own]
    return tuple(own)


def trained_systems(ws: Workspace) -> dict[str, tuple[Path, ...]]:
    """Returns `training_folders` of the teacher of `teach` and (method=delrec_p2rec) of its augmented twin, by name."""
    cells = (recommenders.first_cell(ws.experiment), recommenders.distilled_cell(ws.experiment))
    return {
        cell.system: training_folders(ws, cell, reads_parser=cell.system != PLAIN) for cell in cells
    }


def _training_row(folder: Path, root: Path) -> dict[str, Any] | None:
    """The costs of one training run by what it logged; None if nothing was trained there."""
    log, result = folder / "metrics.jsonl", folder / "result.safetensors"
    if not log.is_file() or not result.is_file():
        return None
    try:
        rows = [dict(json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{log}: cannot be read ({one_line(error, most=200)}); put back a copy of it, or remove it"
        ) from error
    if not rows:
        return None
    seconds, examples = _timed(rows)
    return {
        "folder": folder.relative_to(root).as_posix(),
        "run": rows[-1]["run"],
        "steps": rows[-1]["step"],
        "seconds": rows[-1].get("seconds"),
        "timed_seconds": seconds,
        "timed_examples": examples,
        "memory_gib": max((row["memory_gib"] for row in rows if "memory_gib" in row), default=None),
        "parameters": _parameters(result),
    }


def _timed(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Seconds and examples of the steps between rows, by the means over those of them that could be timed."""
    seconds = examples = 0.0
    before = 0
    for row in rows:
        if "step_seconds" in row:
            took = (row["step"] - before) * row["step_seconds"]
            seconds += took
            examples += took * row["examples_per_second"]
        before = row["step"]
    return seconds, examples


def _parameters(path: Path) -> int:
    """The number of trained numbers in a file of weights; only its header is read."""
    with safe_open(path, framework="numpy") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return int(sum(np.prod(shape, dtype=np.int64) for shape in shapes))
