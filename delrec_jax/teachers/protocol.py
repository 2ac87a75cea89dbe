"""What every teacher can do.

A teacher is a conventional sequential recommender: it scores the whole catalogue for a
history, including for users that it never saw in training. Everything after it (lists,
ranking, distillation) knows only this protocol, so that a new teacher in closed form is one new file.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int

ScoreFn = Callable[[Int[Array, "B L"]], Float[Array, "B I"]]
"""Histories to scores: pure, so that it can be compiled and batched by its caller."""


@runtime_checkable
class PlacedScores(Protocol):
    """Scores that are compiled already and computed over a mesh, where they stay; called by all processes alike."""

    def __call__(self, histories: Int[np.ndarray, "B L"]) -> Float[Array, "B I"]:
        """Scores host histories, as a `ScoreFn` does."""
        ...

    def rows(self, wanted: int) -> int:
        """Returns the size of the smallest batch of at least `wanted` histories that divides over the mesh."""
        ...


class Teacher(Protocol):
    """A trained recommender. Its `scores` is pure and can be passed on as a `ScoreFn`."""

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """Scores the whole catalogue after each history; higher is better.

        Args:
          histories: item indices, left-padded with -1, most recent item last. Rows
            need not belong to users of the training part.

        Returns:
          Finite scores, comparable within a row only.
        """
        ...
