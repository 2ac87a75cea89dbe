"""EASE as one of the recommenders that P2Rec augments: solved instead of trained, with item vectors as CEASE.

CELL/teacher.safetensors   the vectors [I, E] that it explains beside the users, or [I, 0] of a plain one
CELL/teacher.json          the settings that validation chose for it
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from delrec_jax.config import BaselinesConfig
from delrec_jax.distributed import as_main_sees
from delrec_jax.errors import UserError
from delrec_jax.teachers.cease import vector_cease
from delrec_jax.teachers.ease import EASE_WEIGHTED
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import ClosedForm
from delrec_jax.teachers.training_part import TrainingPart
from delrec_jax.training.checkpoints import load_tree, save_tree
from delrec_jax.workdir.closed_forms import Choice, choose_settings, fitted_form
from delrec_jax.workdir.prepared import Data

CHOOSING = BaselinesConfig()
"""The default draw of validation users: what a recommender is must not depend on the settings of the baselines."""


def solve(
    path: Path,
    data: Data,
    train: TrainingPart,
    vectors: Float[np.ndarray, "I E"] | None,
    *,
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    """Chooses the settings by validation and stores them with the vectors, unless that is done.

    Args:
      path: where it is stored.
      data: the corpus.
      train: its training part.
      vectors: those of all items; None = plain EASE.
      identity: everything that the result depends on.

    Returns:
      The description that is stored: `choice`, the settings.

    Raises:
      UserError: the catalogue is too large, or the vectors are not finite.
    """
    if not as_main_sees(lambda: _is_stored(path, identity)):
        held = np.zeros((data.num_items, 0), np.float32) if vectors is None else vectors
        choice = choose_settings(_form(held), data, CHOOSING, train)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tree(path, {"vectors": held}, {"choice": asdict(choice), "identity": dict(identity)})
    return load_tree(path)[1]


def load_solved(path: Path, train: TrainingPart) -> Teacher:
    """Loads what `solve` stored, fitted to a training part.

    Raises:
      UserError: the file is missing or damaged.
    """
    tree, told = load_tree(path)
    return fitted_form(_form(tree["vectors"]), train, Choice(**told["choice"]))


def _is_stored(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether this very recommender is there; what a killed process left half written is not."""
    try:
        return bool(load_tree(path)[1]["identity"] == dict(identity))
    except (UserError, KeyError):
        return False


def _form(vectors: Float[np.ndarray, "I E"]) -> ClosedForm:
    return vector_cease("EASE with embeddings", vectors) if vectors.shape[1] else EASE_WEIGHTED
