"""The trained recommenders of a workdir: which ones exist, where they are stored, and their scores.

teacher/model/result.safetensors                              the one that `teach` trained
augmented/teachers/NAME/seed-S/SYSTEM/teacher.safetensors     those that `augment` trained, in the format of a plain one;
                                                              under augment.way=ensemble the part that reads texts
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from delrec_jax.config import Experiment, TeacherConfig
from delrec_jax.config.p2rec import ENSEMBLE
from delrec_jax.data.splits import Part
from delrec_jax.errors import UserError
from delrec_jax.teachers.ensemble import Ensemble
from delrec_jax.teachers.network import NetworkTeacher
from delrec_jax.teachers.popularity import popularity_teacher
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import NETWORKS, closed_form
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.protocols import RowHistories
from delrec_jax.workdir.workspace import Workspace

ScoreUsers = Callable[[np.ndarray], Any]
PLAIN, AUGMENTED = "teacher", "teacher_augmented"


@dataclass(frozen=True)
class Cell:
    """One recommender of the comparison.

    Attributes:
      name: `sasrec`, `gru4rec` or `caser`.
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


def cell_folder(ws: Workspace, cell: Cell) -> Path:
    """Returns the folder that `augment` trains a recommender in."""
    return ws.folder("augment") / "teachers" / cell.name / f"seed-{cell.seed}" / cell.system


def cell_path(ws: Workspace, cell: Cell) -> Path:
    """Returns the path of a recommender's parameters, in the format of a plain one; `teach` has trained one of them."""
    if cell == first_cell(ws.experiment):
        return taught_path(ws)
    return cell_folder(ws, cell) / "teacher.safetensors"


def load_cell(ws: Workspace, data: Data, cell: Cell) -> Teacher:
    """Loads a trained recommender; one that is not a network is fitted here, an ensemble is put together.

    Raises:
      UserError: the fit of a recommender of the user's own does not return a pytree.
    """
    config = cell.config(ws.experiment)
    if cell.name not in NETWORKS:
        train = data.split.train
        found = closed_form(cell.name).fit(train.offsets, train.items, num_items=data.num_items)
        if jax.tree_util.all_leaves([found]):
            raise UserError(
                f"teacher.name is {cell.name!r}: its fit returns {found!r}, which is not a pytree; return a "
                "flax.struct.PyTreeNode, so that its scores can be compiled"
            )
        return found
    params, _ = load_tree(cell_path(ws, cell))
    module = NETWORKS[cell.name](config.shape, data.num_items)
    network = NetworkTeacher(jax.tree.map(jnp.asarray, params), module)
    if cell.system == PLAIN or ws.experiment.augment.way != ENSEMBLE:
        return network
    return Ensemble((load_cell(ws, data, replace(cell, system=PLAIN)), network))


def distilled_cell(experiment: Experiment) -> Cell:
    """Returns the recommender that DELRec distills: the one of `teach`, or (method=delrec_p2rec) its augmented twin."""
    first = first_cell(experiment)
    return replace(first, system=AUGMENTED) if experiment.method == "delrec_p2rec" else first


def load_teacher(ws: Workspace, data: Data) -> Teacher:
    """Loads the recommender that DELRec distills."""
    return load_cell(ws, data, distilled_cell(ws.experiment))


@dataclass(frozen=True)
class ConventionalSystem:
    """A recommender that reads item numbers.

    Attributes:
      score_users: maps rows of a part's users to scores [B, I].
      order: all rows in the order in which scoring is fastest (by length of history).
    """

    score_users: ScoreUsers
    order: np.ndarray


def conventional_systems(ws: Workspace, data: Data, part: Part) -> dict[str, ConventionalSystem]:
    """Returns popularity, the teacher of `teach`, and (method=delrec_p2rec) its augmented twin, by name."""
    read = RowHistories(data.split, part, ws.experiment.teacher.max_length)
    train, first = data.split.train, first_cell(ws.experiment)
    found = {
        "popularity": popularity_teacher(train.items, data.num_items),
        PLAIN: load_cell(ws, data, first),
    }
    if distilled_cell(ws.experiment) != first:
        found[AUGMENTED] = load_teacher(ws, data)
    return {name: conventional_system(teacher, read) for name, teacher in found.items()}


def conventional_system(teacher: Teacher, read: RowHistories) -> ConventionalSystem:
    """Wraps a teacher so that it scores rows of users."""
    return ConventionalSystem(lambda rows: _scores(teacher, read(rows)), read.by_length)


@jax.jit
def _scores(teacher: Any, histories: Any) -> jax.Array:
    """Scores histories; the teacher is an argument so that recommenders of one shape share a compiled program."""
    scores: jax.Array = teacher.scores(histories)
    return scores
