"""The language model, its catalogue and its batches as shapes, which `delrec plan` uses instead of arrays.

Sizes that a corpus or a tokenizer would determine are assumed (`Assumed`); nothing is computed here.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from delrec_jax.config import Experiment
from delrec_jax.delrec import title_slots
from delrec_jax.errors import UserError
from delrec_jax.language.families import find_family
from delrec_jax.language.family import LanguageModel
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.teachers.network import NetworkTeacher, init_params
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.training.sharding import Layout
from delrec_jax.workdir.base_model import held_shapes
from delrec_jax.workdir.language_model import code_count


@dataclass(frozen=True)
class Assumed:
    """Sizes that a corpus and its tokenizer would determine.

    Attributes:
      items: size of the catalogue.
      title_tokens: tokens of the longest title.
    """

    items: int = 10_000
    title_tokens: int = 32


def planned_model(experiment: Experiment) -> tuple[LanguageModel, str]:
    """Returns the language model with the adapters of stage 2, and where its sizes come from."""
    model, source = find_family(experiment.lm.family).planned(experiment.lm)
    return model.with_adapters(experiment.tune.adalora), source


def ranker_of(experiment: Experiment, assumed: Assumed) -> Ranker:
    """Returns a ranker over random titles of full length: no two are alike under `mean`, as in most catalogues."""
    model, _ = planned_model(experiment)
    size = (assumed.items, assumed.title_tokens)
    tokens = np.random.default_rng(0).integers(1, model.vocab_size, size, np.int32)
    weights = np.full(size, 1 / assumed.title_tokens, np.float32)
    codes = tuple(range(code_count(experiment)))
    verbalizer = find_verbalizer(experiment.lm.verbalizer).configured(experiment.lm, (), ())
    return Ranker(model, tokens, weights, 1, verbalizer, codes)


def teacher_of(experiment: Experiment, items: int) -> NetworkTeacher:
    """Returns the shapes of a trained recommender that `tune.beside` reads.

    Raises:
      UserError: it is not a network, so that only a corpus determines its shapes.
    """
    config = experiment.teacher
    if config.name not in NETWORKS:
        raise UserError(
            f"tune.beside={experiment.tune.beside}: the arrays of teacher.name={config.name!r} have shapes that only a corpus "
            f"determines; plan with one of {', '.join(NETWORKS)}, or with tune.beside=''"
        )
    module = NETWORKS[config.name](config.shape, items)
    params = jax.eval_shape(lambda: init_params(module, jax.random.key(0)))
    return NetworkTeacher(params, module)


def frozen_of(experiment: Experiment, ranker: Ranker, layout: Layout) -> dict[str, Any]:
    """Returns the shapes of the base parameters and, where there are any, of item vectors (padded) and of slots' vectors."""
    held: dict[str, Any] = {"params": held_shapes(experiment, ranker.model), "vectors": None}
    if ranker.ranks_catalogue:
        found = jax.eval_shape(ranker.item_vectors, held["params"])
        rows = (layout.padded("catalogue", found.shape[0]), *found.shape[1:])
        held["vectors"] = jax.ShapeDtypeStruct(rows, found.dtype)
    if experiment.distill.titled:
        teacher = teacher_of(experiment, len(ranker.title_tokens))
        held[title_slots.VECTORS] = jax.eval_shape(
            lambda params: teacher.module.apply({"params": params}, method="table"), teacher.params
        )
    return held
