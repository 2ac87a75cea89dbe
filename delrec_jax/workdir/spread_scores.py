"""Scores of conventional recommenders, on one device (`teachers.compiled`) or spread over a mesh.

Over a mesh, each device scores its share of the users; arrays with one row (or column) per item, and the scores' columns, are
split by the rule for `items`. The scores stay where they are: ranks and best items are computed there, and only those travel.
"""

import jax
import numpy as np
from jaxtyping import Int

from delrec_jax.config import Experiment
from delrec_jax.teachers import network
from delrec_jax.teachers.compiled import CompiledScores
from delrec_jax.teachers.protocol import PlacedScores, Teacher
from delrec_jax.training.sharding import Layout, make_layout, place
from delrec_jax.training.steps import EvalStep


def axes_of(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """Names the axes of any recommender's arrays: those of a network, the matrix [I, I] or vectors [I, E] of a closed form."""
    if path[-1] == "matrix":
        return (None, "items")
    if path[-1] == "vectors":
        return ("items", None)
    return network.axes_of(path, shape)


class SpreadScores:
    """A recommender's `PlacedScores`: histories [B, L] -> [B, I] for any B, placed as the module says."""

    def __init__(self, teacher: Teacher, layout: Layout):
        """Places the recommender's arrays.

        Args:
          teacher: the recommender, a pytree.
          layout: a mesh, and `axes_of`.
        """
        held = {"teacher": teacher}
        self._held = place(held, layout.of(held))
        self._step = EvalStep(
            lambda held, rows: held["teacher"].scores(rows), layout, ("batch", "items")
        )

    def __call__(self, histories: Int[np.ndarray, "B L"]) -> jax.Array:
        """Scores host histories, the same in all processes."""
        return self._step(self._held, histories)

    def rows(self, wanted: int) -> int:
        """Returns the size of the smallest batch of at least `wanted` histories that divides over the mesh."""
        return self._step.layout.rows(wanted)


def placed_scores(teacher: Teacher, layout: Layout | None) -> PlacedScores:
    """Returns a recommender's scores over this mesh; None = on one device."""
    return CompiledScores(teacher) if layout is None else SpreadScores(teacher, layout)


def spread_over(experiment: Experiment) -> Layout | None:
    """Returns the mesh of an experiment for conventional recommenders; None on a single device, which needs none."""
    if len(experiment.mesh.devices()) == 1:
        return None
    return make_layout(experiment.mesh, axes_of)
