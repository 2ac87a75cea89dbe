"""Residual tuning (`tune.beside=teacher`): stage 2 learns what the teacher lacks.

The loss is that of the sum

    s_i = LM_i + tune.beside_weight * z_i,    z = (f(S) - mean) / standard deviation, without a gradient,

where mean and deviation of the teacher's scores f(S) are taken over the items that are open: known from the training part,
and not in the history. z depends on the history alone, so it is the same over the catalogue and among candidates.
Validation selects by the same sum, and evaluation ranks by LM_i alone (the sum is a hybrid of the two systems).

The teacher was trained on the very positions that stage 2 learns from, so there it is better than on new histories. What is
left to learn is therefore understated; and a trained weight would grow to trust such a teacher, which is why it is fixed.
`teacher.folds` cures this for recommenders in closed form: each row is scored by one that was fitted without its user.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.config import Experiment, TeacherConfig
from delrec_jax.data.splits import Part, Split, padded_histories
from delrec_jax.evaluation.ranking import seen_items
from delrec_jax.teachers.standardised import standardised
from delrec_jax.training.sharding import Layout, place
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.language_scorer import CATALOGUE_AXES


@dataclass(frozen=True, eq=False)
class ResidualTuning:
    """What is added to the language model's scores.

    Attributes:
      weight: factor of the standardized scores.
      max_length: number of a history's latest items that the teacher reads.
      known: bool [I], the items that occur in the training part.
    """

    weight: float
    max_length: int
    known: Bool[np.ndarray, " I"]

    def open_items(self, histories: Int[Array, "B H"]) -> Bool[Array, "B I"]:
        """The known items that are not in the history."""
        seen: Array = seen_items(histories, num_items=len(self.known))
        return ~seen & self.known

    def scores(self, teacher: Any, histories: Int[Array, "B H"]) -> Float[Array, "B I"]:
        """The weighted, standardized scores of all items after these histories.

        Args:
          teacher: the recommender, a pytree (`teachers.protocol.Teacher`).
          histories: all items before the label, left-padded with -1.
        """
        scores = teacher.scores(histories[:, -self.max_length :])
        found = self.weight * standardised(scores, self.open_items(histories))
        return jax.lax.stop_gradient(found)

    def of_folds(
        self, teachers: Any, histories: Int[Array, "B H"], folds: Int[Array, " B"] | None
    ) -> Float[Array, "B I"]:
        """The same by each row's own recommender of several, or by one if `folds` is None."""
        if folds is None:
            return self.scores(teachers, histories)
        found = jnp.stack([self.scores(teacher, histories) for teacher in teachers])  # [K, B, I]
        return found[folds, jnp.arange(len(folds))]

    def of_part(
        self, part: Part, split: Split, teacher: Any, config: TeacherConfig, layout: Layout
    ) -> Callable[[Int[np.ndarray, " B"]], Float[Array, "B I"]]:
        """Returns a function from rows of a part to the same of their histories.

        Args:
          part: `valid` or `test`.
          split: has the histories.
          teacher: the recommender, on the host.
          config: what it reads.
          layout: the language model's.
        """
        longest = int(split.history_lengths(part).max())
        length = max(longest, config.reads(longest))
        layout = with_teacher(layout)
        scores = EvalStep(
            lambda held, rows: self.scores(held["teacher"], rows), layout, CATALOGUE_AXES
        )
        held = {"teacher": teacher}
        held = place(held, layout.of(held))
        return lambda rows: scores(held, padded_histories(split, part, length, rows=rows))


def beside_of(experiment: Experiment, known: Bool[np.ndarray, " I"]) -> ResidualTuning | None:
    """What the config tunes beside; None if nothing.

    Args:
      experiment: the config.
      known: the items that occur in the training part.
    """
    if not experiment.tune.beside:
        return None
    return ResidualTuning(experiment.tune.beside_weight, experiment.teacher.max_length, known)


def with_teacher(layout: Layout) -> Layout:
    """The language model's layout for trees that hold a recommender under `teacher`: every device has a copy of that."""

    def axes_of(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
        return (None,) * len(shape) if path[0] == "teacher" else layout.axes_of(path, shape)

    return replace(layout, axes_of=axes_of)
