"""The trained recommenders of a workdir: which there are, where they stand, and their scores.

teacher/model/result.safetensors                              the one that `teach` trained
augmented/teachers/NAME/seed-S/SYSTEM/teacher.safetensors     those of `augment`, in the form of a plain one
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.config import Experiment, TeacherConfig
from delrec_jax.data.splits import Part
from delrec_jax.teachers.network import NetworkTeacher
from delrec_jax.teachers.popularity import popularity_teacher
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.workdir.assets import Data
from delrec_jax.workdir.protocols import RowHistories
from delrec_jax.workdir.workspace import Workspace

ScoreUsers = Callable[[np.ndarray], Any]
PLAIN, AUGMENTED = "teacher", "teacher_augmented"
UNTUNED, SHUFFLED = "teacher_augmented_untuned_lm", "teacher_augmented_shuffled_text"


@dataclass(frozen=True)
class Cell:
    """One recommender of the comparison.

    Attributes:
      name: `sasrec`, `gru4rec` or `caser`.
      seed: of its training, and of the parsing whose embeddings it got.
      system: `PLAIN`, `AUGMENTED`, `UNTUNED` or `SHUFFLED`.
    """

    name: str
    seed: int
    system: str

    def config(self, experiment: Experiment) -> TeacherConfig:
        """How it trains: as the run's teacher, under its own name."""
        return replace(experiment.teacher, name=self.name)


def seeds(experiment: Experiment) -> range:
    """Of the repetitions; DELRec needs one teacher only."""
    count = experiment.parse.seeds if experiment.method == "p2rec" else 1
    return range(experiment.seed, experiment.seed + count)


def cells(experiment: Experiment) -> list[Cell]:
    """All recommenders that `augment` trains, those of one network one after the other."""
    if experiment.method != "p2rec":
        return [Cell(experiment.teacher.name, experiment.seed, AUGMENTED)]
    controls = (UNTUNED, SHUFFLED) if experiment.augment.controls else ()
    return [
        Cell(name, seed, system)
        for name in experiment.augment.teachers
        for system in (PLAIN, AUGMENTED, *controls)
        for seed in seeds(experiment)
    ]


def first_cell(experiment: Experiment) -> Cell:
    """The recommender that `teach` trains."""
    return Cell(experiment.teacher.name, experiment.seed, PLAIN)


def taught_path(ws: Workspace) -> Path:
    """Its parameters."""
    return ws.folder("teach") / "model" / "result.safetensors"


def cell_folder(ws: Workspace, cell: Cell) -> Path:
    """Where a recommender is trained."""
    return ws.folder("augment") / "teachers" / cell.name / f"seed-{cell.seed}" / cell.system


def cell_path(ws: Workspace, cell: Cell) -> Path:
    """The parameters of a trained recommender, in the form of a plain one. `teach` has made one of them already."""
    if cell == first_cell(ws.experiment):
        return taught_path(ws)
    return cell_folder(ws, cell) / "teacher.safetensors"


def load_cell(ws: Workspace, data: Data, cell: Cell) -> Teacher:
    """A trained recommender; popularity only counts."""
    config = cell.config(ws.experiment)
    if cell.name not in NETWORKS:
        return popularity_teacher(data.split.train.items, data.num_items)
    params, _ = load_tree(cell_path(ws, cell))
    module = NETWORKS[cell.name](config.shape, data.num_items)
    return NetworkTeacher(jax.tree.map(jnp.asarray, params), module)


def load_teacher(ws: Workspace, data: Data) -> Teacher:
    """The teacher that DELRec distils: the one of `teach`, or (method=delrec_p2rec) its augmented twin."""
    first = first_cell(ws.experiment)
    augmented = ws.experiment.method == "delrec_p2rec"
    return load_cell(ws, data, replace(first, system=AUGMENTED) if augmented else first)


@dataclass(frozen=True)
class ConventionalSystem:
    """A recommender that reads item numbers.

    Attributes:
      score_users: rows of a part's users -> scores [B, I].
      order: the rows, best scored in this order (by length of history).
    """

    score_users: ScoreUsers
    order: np.ndarray


def conventional_systems(ws: Workspace, data: Data, part: Part) -> dict[str, ConventionalSystem]:
    """Popularity and the teacher of `teach`."""
    read = RowHistories(data.split, part, ws.experiment.teacher.max_length)
    popularity = popularity_teacher(data.split.train.items, data.num_items)
    taught = load_cell(ws, data, first_cell(ws.experiment))
    return {
        "popularity": conventional_system(popularity, read),
        "teacher": conventional_system(taught, read),
    }


def augmented_system(ws: Workspace, data: Data, part: Part) -> dict[str, ConventionalSystem]:
    """The augmented teacher, where DELRec has one (method=delrec_p2rec)."""
    if ws.experiment.method != "delrec_p2rec":
        return {}
    read = RowHistories(data.split, part, ws.experiment.teacher.max_length)
    return {"teacher_augmented": conventional_system(load_teacher(ws, data), read)}


def conventional_system(teacher: Teacher, read: RowHistories) -> ConventionalSystem:
    """A teacher's scores, asked by rows of users."""
    return ConventionalSystem(lambda rows: _scores(teacher, read(rows)), read.by_length)


@jax.jit
def _scores(teacher: Any, histories: Any) -> jax.Array:
    """The teacher is an argument: recommenders of one shape share a compiled program."""
    return teacher.scores(histories)
