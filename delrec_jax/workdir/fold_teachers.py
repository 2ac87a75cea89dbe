"""Teachers that do not know whom they are asked about (`teacher.folds`).

A recommender in closed form remembers the users that it was computed from: on their own training histories it is nearly always
right, on new ones it is not. Distilled from there, a language model would learn a teacher that does not exist. So the training
users are drawn into groups, and each is asked about in the recommender that was fitted without their group; settings and
weights are those of the whole.

Source: Wolpert, "Stacked generalization", 1992.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from delrec_jax import prng
from delrec_jax.teachers.listed import ListSource
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.workdir.closed_forms import training_part
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import distilled_cell, list_source, load_cell
from delrec_jax.workdir.workspace import Workspace


@dataclass(frozen=True)
class FoldTeachers:
    """One teacher for each group of users, fitted without it.

    Attributes:
      fold_of: the group of each user, int32 [U].
      teachers: the teacher of each group.
    """

    fold_of: Int[np.ndarray, " U"]
    teachers: tuple[Teacher, ...]

    def gathered(
        self,
        users: Int[np.ndarray, " N"],
        ask: Callable[[Teacher, np.ndarray], tuple[np.ndarray, ...]],
    ) -> tuple[np.ndarray, ...]:
        """Asks each row's own teacher.

        Args:
          users: the user of each row.
          ask: maps a teacher and rows [n] to arrays [n, ...].

        Returns:
          The arrays of all rows, in their order.
        """
        rows = [np.flatnonzero(self.fold_of[users] == fold) for fold in range(len(self.teachers))]
        pairs = zip(self.teachers, rows, strict=True)
        found = [ask(teacher, chosen) for teacher, chosen in pairs if len(chosen)]
        order = np.argsort(np.concatenate(rows), kind="stable")
        return tuple(np.concatenate(parts)[order] for parts in zip(*found, strict=True))


def fold_teachers(ws: Workspace, data: Data) -> FoldTeachers | None:
    """Fits the teachers of all groups; None if the config asks for none."""
    count = ws.experiment.teacher.folds
    if not count:
        return None
    users = len(data.split.train.lengths)
    drawn = prng.generator(ws.experiment.seed, "teacher/folds").permutation(users)
    fold_of = np.empty(users, np.int32)
    fold_of[drawn] = np.arange(users) % count
    whole, cell = training_part(data), distilled_cell(ws.experiment)
    teachers: list[Any] = [
        load_cell(ws, data, cell, whole.without(fold_of == fold)) for fold in range(count)
    ]
    return FoldTeachers(fold_of, tuple(teachers))


TrainingSource = ListSource | FoldTeachers
"""What is asked about positions of the training part."""


def training_source(ws: Workspace, data: Data) -> TrainingSource:
    """Returns the teachers of all groups, or, without groups, what every other history is asked of."""
    return fold_teachers(ws, data) or list_source(ws, data)
