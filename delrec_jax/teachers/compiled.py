"""Scores of recommenders on one device, compiled once for all recommenders of one shape."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from delrec_jax.teachers.protocol import Teacher


@jax.jit
def compiled_scores(teacher: Any, histories: Any) -> jax.Array:
    """Scores histories [B, L], left-padded with -1: [B, I].

    The teacher is an argument: as a constant, its matrix [I, I] would be part of the program, which would be compiled anew for
    every teacher.
    """
    scores: jax.Array = teacher.scores(histories)
    return scores


class CompiledScores:
    """A recommender's `PlacedScores` on one device: histories [B, L] -> [B, I] for any B."""

    def __init__(self, teacher: Teacher):
        """Takes a recommender, a pytree."""
        self._teacher = teacher

    def __call__(self, histories: Int[np.ndarray, "B L"]) -> jax.Array:
        """Scores histories."""
        scores: jax.Array = compiled_scores(self._teacher, histories)
        return scores

    def rows(self, wanted: int) -> int:
        """Returns `wanted`: any number of histories is a batch."""
        return wanted
