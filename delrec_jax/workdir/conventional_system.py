"""Recommenders that read item numbers, as systems of the evaluation."""

import jax
import numpy as np

from delrec_jax.data.splits import Part, Split
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.training.sharding import Layout
from delrec_jax.workdir.protocols import RowHistories
from delrec_jax.workdir.spread_scores import placed_scores


class ConventionalSystem:
    """A recommender that reads item numbers, as a `systems.System`."""

    _read: dict[Part, RowHistories]

    def __init__(self, teacher: Teacher, split: Split, longest: int, layout: Layout | None = None):
        """Reads nothing yet.

        Args:
          teacher: the recommender.
          split: the users and their histories.
          longest: number of a history's latest items that it reads.
          layout: the mesh that it is scored on (`spread_scores`); None = one device.
        """
        self._split, self._longest, self._read = split, longest, {}
        self._scores = placed_scores(teacher, layout)

    def scores(self, part: Part, rows: np.ndarray) -> jax.Array:
        """Scores the catalogue [B, I] for rows of a part; over a mesh, the scores stay split."""
        found: jax.Array = self._scores(self._histories(part)(rows))
        return found

    def order(self, part: Part) -> np.ndarray:
        """All rows, shortest history first."""
        return self._histories(part).by_length

    def _histories(self, part: Part) -> RowHistories:
        if part not in self._read:
            self._read[part] = RowHistories(self._split, part, self._longest)
        return self._read[part]
