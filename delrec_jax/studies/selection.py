"""What validation says of the arms: test data never chooses between settings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from delrec_jax.analysis.tables import read_log
from delrec_jax.delrec.systems import TUNED
from delrec_jax.errors import UserError
from delrec_jax.studies.runs import StudyRun
from delrec_jax.studies.study import Study
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.workspace import Workspace

_TRAINED = {"teacher": ("teach", "model")} | {
    system: ("tune", prompt) for system, prompt in TUNED.items()
}
"""Where the training of a system that validation selects steps of is logged: stage and folder in it."""

_AUGMENTED = "teacher_augmented"
"""What the names of P2Rec's systems begin with."""


def validation(
    study: Study, runs: Sequence[StudyRun], workdirs: Mapping[str, Workspace], *, required: bool
) -> dict[str, list[float]]:
    """Each arm's value of the study's metric on the validation users, one per seed, of the step that was selected.

    Args:
      study: the first system of each arm is the one that is read.
      runs: finished runs.
      workdirs: their workdirs, by name.
      required: whether every arm must have one, since validation is to choose between them.

    Returns:
      By arm; arms have none whose system is not trained on its own, or whose metric validation does not measure.

    Raises:
      UserError: a required value is not there.
    """
    found: dict[str, list[float]] = {}
    for run in runs:
        system, ws = study.systems_of(run.arm)[0], workdirs[run.name]
        try:
            value = _validated(system, study.metric, ws)
        except _NotValidated as error:
            if required:
                raise UserError(str(error)) from None
            continue
        found.setdefault(run.arm.name, []).append(value)
    return found


def best_arm(values: Mapping[str, Sequence[float]]) -> str:
    """The arm with the best mean over seeds; of equal ones the first."""
    return max(values, key=lambda name: float(np.mean(values[name])))


def validation_log(system: str) -> tuple[str, str] | None:
    """The stage in which a system gets its validation value, and the folder of its training log in it.

    Returns:
      The folder is "" for an augmented recommender, which has several; None for systems that are not trained on their own.
    """
    if system.startswith(_AUGMENTED):
        return "augment", ""
    return _TRAINED.get(system)


def measured_of(system: str) -> tuple[str, ...]:
    """The metrics by which validation selects a system; none if it is not trained on its own."""
    if system.startswith(_AUGMENTED):
        return ("NDCG@10",)
    return ("HR@1", "NDCG@10") if system in _TRAINED else ()


def validation_so_far(path: Path, metric: str) -> dict[int, float]:
    """Values of a metric on the validation users by step, from a log that may be in the middle of being written.

    Args:
      path: a `metrics.jsonl`; nothing is known while it does not exist.
      metric: such as `NDCG@10`.
    """
    found: dict[int, float] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:  # the last line, half of it
            continue
        if isinstance(row, dict) and f"valid/{metric}" in row:
            found[int(row["step"])] = float(row[f"valid/{metric}"])
    return found


class _NotValidated(Exception):
    """Validation has no such value of a system; the text says why."""


def _validated(system: str, metric: str, ws: Workspace) -> float:
    if metric not in (known := measured_of(system)):
        measures = f"measures {' and '.join(known)}" if known else "selects nothing"
        raise _NotValidated(
            f"{ws.root}: no {metric} of {system} on the validation users: of this system, validation {measures}"
        )
    if system.startswith(_AUGMENTED):
        return _of_augmented(ws.folder("augment") / "augment.json", system)
    stage, name = _TRAINED[system]
    return _selected(ws.folder(stage) / name, metric)


def _selected(folder: Path, metric: str) -> float:
    if not (folder / "result.json").exists():
        raise _NotValidated(
            f"{folder}: has no result of training, so validation selects nothing here: a recommender in closed form has no "
            "such value"
        )
    step = read_json(folder / "result.json")["best_step"]
    for row in read_log(folder / "metrics.jsonl"):
        if row["step"] == step and f"valid/{metric}" in row:
            return float(row[f"valid/{metric}"])
    raise UserError(f"{folder / 'metrics.jsonl'}: no valid/{metric} at step {step}")


def _of_augmented(path: Path, system: str) -> float:
    """The mean over recommenders of NDCG@10, by which they are selected."""
    values = [row["valid_ndcg10"] for row in read_json(path) if row["system"] == system]
    if not values:
        raise _NotValidated(f"{path}: has no {system}; augment.controls leaves it out")
    return float(np.mean(values))
