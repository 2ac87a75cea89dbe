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
from delrec_jax.teachers.cease import vector_cease
from delrec_jax.teachers.ease import EASE_WEIGHTED
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import ClosedForm
from delrec_jax.training.checkpoints import load_tree, save_tree
from delrec_jax.workdir.closed_forms import Choice, choose_settings, fitted_form, training_part
from delrec_jax.workdir.prepared import Data

# The default draw of users: what a recommender is must not depend on the settings of the baselines.
_CHOOSING = BaselinesConfig()

Vectors = Float[np.ndarray, "I E"]


def solve(
    path: Path, data: Data, vectors: Vectors | None, *, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Chooses the settings by validation and stores them with the vectors, or returns the description that is stored.

    Args:
      path: where it is stored.
      data: the corpus.
      vectors: those of all items; None = plain EASE.
      identity: everything that the result depends on.
    """
    if path.exists():
        _, told = load_tree(path)
        if told["identity"] == identity:
            return told
    held = np.zeros((data.num_items, 0), np.float32) if vectors is None else vectors
    choice = choose_settings(_form(held), data, _CHOOSING)
    told = {"choice": asdict(choice), "identity": dict(identity)}
    told |= {"best_value": choice.valid_ndcg10, "best_step": -1, "steps": 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tree(path, {"vectors": held}, told)
    return told


def load_solved(path: Path, data: Data) -> Teacher:
    """Loads what `solve` stored, fitted to the training part."""
    tree, told = load_tree(path)
    return fitted_form(_form(tree["vectors"]), training_part(data), Choice(**told["choice"]))


def _form(vectors: Vectors) -> ClosedForm:
    return vector_cease("EASE", vectors) if vectors.shape[1] else EASE_WEIGHTED
