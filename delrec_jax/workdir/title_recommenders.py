"""The recommenders of the language model's own vectors of titles, untuned.

lm_embeddings   a user is sent to the items whose titles are nearest to those of the latest items (Harte et al., "Leveraging
                Large Language Models for Sequential Recommendation", RecSys 2023, call it LLMSeqSim)
lm_cease        CEASE (`teachers.cease`) with these vectors in place of the titles' words

Nothing of the language model is trained. Their settings are chosen by validation, as those of all closed forms, and are kept
beside the records: title_vectors.json.
"""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from jaxtyping import Float

from delrec_jax.config import BaselinesConfig
from delrec_jax.distributed import as_main_has, on_main
from delrec_jax.errors import UserError
from delrec_jax.evaluation.systems import LM_CEASE, LM_EMBEDDINGS
from delrec_jax.teachers.cease import vector_cease
from delrec_jax.teachers.item_to_item import (
    READ_ITEMS,
    VectorSimilarity,
    vector_similarity,
)
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import ClosedForm
from delrec_jax.teachers.training_part import TrainingPart
from delrec_jax.training.writers import say
from delrec_jax.workdir.closed_forms import Choice, choose_settings, fitted_form, training_part
from delrec_jax.workdir.conventional_system import ConventionalSystem
from delrec_jax.workdir.json_files import read_json, write_json
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.spread_scores import spread_over
from delrec_jax.workdir.workspace import Workspace

FILE = "title_vectors.json"
"""Where `evaluate` keeps what validation chose, by system."""

Vectors = Float[np.ndarray, "I E"]


class _Nearest:
    """The nearest titles as a `registry.ClosedForm`."""

    title = "LM's title vectors"
    max_length = READ_ITEMS
    grid: Mapping[str, tuple[float, ...]] = {}

    def __init__(self, vectors: Vectors):
        """Compares nothing yet."""
        self._vectors = vectors

    def fit(self, train: TrainingPart) -> VectorSimilarity:
        """Asks the vectors alone."""
        return vector_similarity(self._vectors)


def _forms(vectors: Vectors, names: tuple[str, ...]) -> dict[str, ClosedForm]:
    """The recommenders of these vectors by name: CEASE where the one with words is asked for too, its control."""
    found: dict[str, ClosedForm] = {LM_EMBEDDINGS: _Nearest(vectors)}
    if "cease" in names:
        found[LM_CEASE] = vector_cease("CEASE with LM's title vectors", vectors)
    return found


def title_vector_systems(
    ws: Workspace, vectors: Vectors, data: Data
) -> dict[str, ConventionalSystem]:
    """Returns the recommenders as systems by name, and keeps what validation chose; one that cannot be fitted is left out.

    Args:
      ws: the workdir, in whose folder of `evaluate` the choices are kept.
      vectors: the language model's vectors of the titles.
      data: the corpus.
    """
    config, layout = ws.experiment.baselines, spread_over(ws.experiment)
    train, systems, kept = training_part(data), {}, {}
    for name, form in _forms(vectors, config.names).items():
        try:
            choice = Choice(**as_main_has(asdict(choose_settings(form, data, config, train))))
        except UserError as error:
            say(f"  {form.title} is left out: {error}")
            continue
        teacher = fitted_form(form, train, choice)
        systems[name] = ConventionalSystem(teacher, data.split, READ_ITEMS, layout)
        kept[name] = asdict(choice)
        say(f"  {form.title}: validation NDCG@10 {choice.valid_ndcg10:.4f} with {choice.told}")
    on_main(lambda: write_json(ws.folder("evaluate") / FILE, kept))
    return systems


def stored(ws: Workspace) -> dict[str, Choice]:
    """What validation chose in `evaluate`, by system; nothing if it has not run, or had no such systems."""
    file = ws.folder("evaluate") / FILE
    if not (ws.finished("evaluate") and file.exists()):
        return {}
    return {name: Choice(**one) for name, one in read_json(file).items()}


def title_vector_teacher(
    name: str, choice: Choice, vectors: Vectors, data: Data, config: BaselinesConfig
) -> Teacher:
    """Returns one of the recommenders as validation chose it; it reads the `READ_ITEMS` latest items of a history.

    Args:
      name: one of `evaluation.systems.TITLE_VECTORS` that `choice` is of.
      choice: its settings.
      vectors: the language model's vectors of the titles.
      data: the corpus.
      config: which baselines there are.
    """
    return fitted_form(_forms(vectors, config.names)[name], training_part(data), choice)
