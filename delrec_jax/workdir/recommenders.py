"""The trained recommenders of a workdir: which ones exist, where they are stored, and their scores.

teacher/model/result.safetensors                              the one that `teach` trained
teacher/teacher.json                                          its name, the settings of one that is computed, or the parts and
                                                              weights of a hybrid
augmented/teachers/NAME/seed-S/SYSTEM/teacher.safetensors     those that `augment` trained, in the format of a plain one;
                                                              under augment.way=ensemble the part that reads texts; of EASE,
                                                              what `augmented_ease` stores
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from delrec_jax.config import Experiment, TeacherConfig
from delrec_jax.config.p2rec import ENSEMBLE, SOLVED
from delrec_jax.errors import UserError
from delrec_jax.teachers.ensemble import Ensemble
from delrec_jax.teachers.listed import ListSource
from delrec_jax.teachers.network import NetworkTeacher
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import (
    LISTS,
    NETWORKS,
    closed_form,
    network_of,
    parts_of,
)
from delrec_jax.teachers.training_part import TrainingPart
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.workdir.augmented_ease import load_solved
from delrec_jax.workdir.closed_forms import (
    Choice,
    chosen,
    fitted,
    training_part,
)
from delrec_jax.workdir.conventional_system import ConventionalSystem
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.listed_teacher import ListedSystem, listed_teacher
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.spread_scores import placed_scores, spread_over
from delrec_jax.workdir.systems import System
from delrec_jax.workdir.workspace import Workspace

PLAIN, AUGMENTED = "teacher", "teacher_augmented"


@dataclass(frozen=True)
class Cell:
    """One recommender of the comparison.

    Attributes:
      name: as in `augment.teachers`; or that of the run's teacher (`teacher.name`).
      seed: seed of its training, and of the parsing that its embeddings come from.
      system: `PLAIN`, `AUGMENTED`, or one of P2Rec's controls.
    """

    name: str
    seed: int
    system: str

    def config(self, experiment: Experiment) -> TeacherConfig:
        """Returns its training config: that of the run's teacher, with its own name."""
        return replace(experiment.teacher, name=self.name)


def first_cell(experiment: Experiment) -> Cell:
    """Returns the recommender that `teach` trains."""
    return Cell(experiment.teacher.name, experiment.seed, PLAIN)


def taught_path(ws: Workspace) -> Path:
    """Returns the path of the parameters that `teach` trained."""
    return ws.folder("teach") / "model" / "result.safetensors"


def taught_vectors(ws: Workspace, num_items: int) -> Float[np.ndarray, "I D"]:
    """Returns the item vectors of the network that `teach` trained."""
    config = ws.experiment.teacher
    params, _ = load_tree(taught_path(ws))
    module = NETWORKS[config.name](config.shape, num_items)
    return np.asarray(module.apply({"params": params}, method="table"))


def is_ensemble(experiment: Experiment, cell: Cell) -> bool:
    """Whether a recommender is the sum of a plain one and one that reads texts."""
    augmented = cell.system != PLAIN and cell.name != SOLVED
    return augmented and experiment.augment.way == ENSEMBLE


def cell_folder(ws: Workspace, cell: Cell) -> Path:
    """Returns the folder that `augment` trains a recommender in."""
    return ws.folder("augment") / "teachers" / cell.name / f"seed-{cell.seed}" / cell.system


def cell_path(ws: Workspace, cell: Cell) -> Path:
    """Returns the path of a recommender's parameters, in the format of a plain one; `teach` has trained one of them."""
    if cell == first_cell(ws.experiment):
        return taught_path(ws)
    return cell_folder(ws, cell) / "teacher.safetensors"


def load_cell(ws: Workspace, data: Data, cell: Cell, train: TrainingPart | None = None) -> Teacher:
    """Loads a trained recommender; one that is not a network is fitted here, hybrids and ensembles are put together.

    Args:
      ws: the workdir.
      data: its corpus.
      cell: the recommender.
      train: what closed forms are fitted on; None = the whole training part.

    Raises:
      UserError: it exists only as lists, so that it cannot be asked about any history.
    """
    if cell.name == LISTS:
        raise UserError(
            "teacher.name=lists: this asks the teacher about a history that its file does not hold; take another teacher"
        )
    if cell.name == SOLVED and cell != first_cell(ws.experiment):
        return load_solved(cell_path(ws, cell), train or training_part(data))
    if cell.name in NETWORKS:
        network = _load_network(ws, data, cell)
        if not is_ensemble(ws.experiment, cell):
            return network
        return Ensemble((load_cell(ws, data, replace(cell, system=PLAIN)), network))
    facts = read_json(ws.folder("teach") / "teacher.json")
    if len(parts_of(cell.name)) == 1:
        return load_part(ws, data, cell.name, facts, train)
    weights = {name: weight for name, weight in facts["weights"].items() if weight}
    return Ensemble(
        parts=tuple(load_part(ws, data, name, facts["parts"][name], train) for name in weights),
        weights=jnp.asarray(list(weights.values()), jnp.float32),
        lengths=tuple(part_length(ws.experiment, name) for name in weights),
        among_unseen=True,
    )


def part_length(experiment: Experiment, name: str) -> int:
    """Returns the number of latest items that a part of the teacher reads."""
    return replace(experiment.teacher, name=name).max_length


def load_part(
    ws: Workspace,
    data: Data,
    name: str,
    facts: Mapping[str, Any],
    train: TrainingPart | None = None,
) -> Teacher:
    """Loads what `teach` made of one name: a network, or a recommender in closed form.

    Args:
      ws: the workdir.
      data: what it is fitted on.
      name: that of the teacher, or of a part of it.
      facts: what `teach` tells about it in teacher.json.
      train: what a recommender in closed form is fitted on; None = the whole training part.
    """
    if name in NETWORKS:
        return _load_network(ws, data, first_cell(ws.experiment))
    return fitted(name, train or training_part(data), Choice(**facts["choice"]))


def _load_network(ws: Workspace, data: Data, cell: Cell) -> NetworkTeacher:
    config = cell.config(ws.experiment)
    params, _ = load_tree(cell_path(ws, cell))
    module = NETWORKS[network_of(cell.name)](config.shape, data.num_items)
    return NetworkTeacher(jax.device_put(params), module)


def distilled_cell(experiment: Experiment) -> Cell:
    """Returns the recommender that DELRec distills: the one of `teach`, or (method=delrec_p2rec) its augmented twin."""
    first = first_cell(experiment)
    return replace(first, system=AUGMENTED) if experiment.method == "delrec_p2rec" else first


def load_teacher(ws: Workspace, data: Data) -> Teacher:
    """Loads the recommender that DELRec distills."""
    return load_cell(ws, data, distilled_cell(ws.experiment))


def cell_system(ws: Workspace, data: Data, cell: Cell) -> ConventionalSystem:
    """Returns a trained recommender as a system, scored over the mesh of the config."""
    teacher, layout = load_cell(ws, data, cell), spread_over(ws.experiment)
    return ConventionalSystem(teacher, data.split, cell.config(ws.experiment).max_length, layout)


def list_source(ws: Workspace, data: Data, cell: Cell | None = None) -> ListSource:
    """Returns what a recommender's best items are taken from: its scores, or the lists that it consists of.

    Args:
      ws: the workdir.
      data: its corpus.
      cell: the recommender; None = the one that DELRec distills.
    """
    cell = cell or distilled_cell(ws.experiment)
    if listed := listed_teacher(ws, data):
        return listed
    teacher, layout = load_cell(ws, data, cell), spread_over(ws.experiment)
    return placed_scores(teacher, layout)


def baseline_systems(ws: Workspace, data: Data) -> dict[str, ConventionalSystem]:
    """Returns the closed-form baselines by name, with the settings that `fit` chose."""
    train, layout = training_part(data), spread_over(ws.experiment)
    return {
        name: ConventionalSystem(
            fitted(name, train, choice), data.split, closed_form(name).max_length, layout
        )
        for name, choice in chosen(ws).items()
    }


def conventional_systems(ws: Workspace, data: Data) -> dict[str, System]:
    """Returns the baselines, the teacher of `teach`, and (method=delrec_p2rec) its augmented twin, by name."""
    found: dict[str, System] = {**baseline_systems(ws, data), PLAIN: taught_system(ws, data)}
    if distilled_cell(ws.experiment) != first_cell(ws.experiment):
        found[AUGMENTED] = cell_system(ws, data, distilled_cell(ws.experiment))
    return found


def taught_system(ws: Workspace, data: Data) -> System:
    """Returns the teacher of `teach`."""
    if listed := listed_teacher(ws, data):
        return ListedSystem(listed, data.split, data.num_items)
    return cell_system(ws, data, first_cell(ws.experiment))
