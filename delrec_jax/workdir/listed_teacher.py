"""`teacher.name=lists`: the recommender whose lists another system made, as a file of the workdir and as a system to rank.

teacher/lists.safetensors    the lists of `teacher.lists`, checked; the user's file is not needed any more
"""

from pathlib import Path

import jax
import numpy as np

from delrec_jax.data.recommendation_lists import RecommendationLists, read_recommendation_lists
from delrec_jax.data.splits import Part, Split
from delrec_jax.files import expanded, file_hash
from delrec_jax.teachers.listed import ListedTeacher
from delrec_jax.teachers.registry import LISTS
from delrec_jax.training.checkpoints import load_tree, save_tree
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace


def read_listed(path: Path, data: Data) -> ListedTeacher:
    """Reads the user's file.

    Raises:
      UserError: it cannot be read, or does not belong to the corpus.
    """
    return _teacher(read_recommendation_lists(path, data.corpus), data, str(path))


def save_listed(ws: Workspace, teacher: ListedTeacher) -> None:
    """Stores the lists in the workdir; all processes must call it."""
    arrays = {name: getattr(teacher, name) for name in RecommendationLists.__dataclass_fields__}
    save_tree(_path(ws), arrays, {"source": teacher.source})


def listed_teacher(ws: Workspace, data: Data) -> ListedTeacher | None:
    """Returns the lists that `teach` stored; None if the teacher is not one that exists only as lists."""
    if ws.experiment.teacher.name != LISTS:
        return None
    arrays, meta = load_tree(_path(ws))
    return _teacher(RecommendationLists(**arrays), data, meta["source"])


def lists_changed(ws: Workspace) -> bool:
    """Returns whether the user's file has changed since `teach` read it; a file that is gone has not."""
    path = expanded(ws.experiment.teacher.lists)
    if ws.experiment.teacher.name != LISTS or not path.is_file():
        return False
    stored: str = read_json(ws.folder("teach") / "teacher.json")["file"]
    return file_hash(path) != stored


def _teacher(lists: RecommendationLists, data: Data, source: str) -> ListedTeacher:
    return ListedTeacher(**vars(lists), user_ids=data.split.interactions.user_ids, source=source)


def _path(ws: Workspace) -> Path:
    return ws.folder("teach") / "lists.safetensors"


class ListedSystem:
    """The lists, as a `systems.System`: an item that a list leaves out ties with all others behind those that it has."""

    def __init__(self, teacher: ListedTeacher, split: Split, num_items: int):
        """Ranks nothing yet."""
        self._teacher, self._split, self._num_items = teacher, split, num_items

    def scores(self, part: Part, rows: np.ndarray) -> jax.Array:
        """Scores the catalogue [B, I] for rows of a part."""
        users, lengths = self._split.users(part)[rows], self._split.history_lengths(part)[rows]
        return self._teacher.catalogue_scores(users, lengths, self._num_items)

    def order(self, part: Part) -> None:
        """Any order of the rows is as fast."""
