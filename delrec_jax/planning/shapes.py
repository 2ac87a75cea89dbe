"""The language model, its catalogue and its batches as shapes: what `delrec plan` looks at in the place of arrays.

Sizes that a corpus or a tokenizer would tell are assumed (`Assumed`); nothing here computes.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from delrec_jax.config import Experiment
from delrec_jax.language import flan
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.weight_names import leaves
from delrec_jax.workdir import base_model


@dataclass(frozen=True)
class Assumed:
    """What a corpus would tell.

    Attributes:
      items: of the catalogue.
      title_tokens: of the longest title, after the tokenizer.
    """

    items: int = 10_000
    title_tokens: int = 32


def language_shape(experiment: Experiment) -> tuple[T5Config, str]:
    """The language model's shape, and where its sizes were read."""
    lm = experiment.lm
    if lm.weights:
        sizes, source = flan.pretrained_shape(lm.weights)
        shape = base_model.as_configured(experiment, sizes)
    else:
        # A trained tokenizer has at most so many ids.
        shape, source = replace(lm.t5, vocab_size=lm.vocab_size), "lm.t5 and lm.vocab_size"
    return replace(shape, adapters=experiment.tune.adalora), source


def ranker_of(experiment: Experiment, assumed: Assumed) -> Ranker:
    """Random titles of full length: no two alike under `mean`, as in most catalogues."""
    shape, _ = language_shape(experiment)
    # The kernel of cuDNN cannot be compiled for a CPU, and needs no more memory than what stands in for it.
    shape = replace(shape, attention="xla")
    size = (assumed.items, assumed.title_tokens)
    tokens = np.random.default_rng(0).integers(1, shape.vocab_size, size, np.int32)
    weights = np.full(size, 1 / assumed.title_tokens, np.float32)
    codes = tuple(range(max(experiment.distill.num_candidates, experiment.tune.num_candidates)))
    return Ranker(T5(shape), tokens, weights, 1, experiment.lm.verbalizer, codes)


def params_of(shape: T5Config) -> dict[str, Any]:
    """The base parameters."""
    return traverse_util.unflatten_dict(
        {leaf.path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves(shape)}
    )


def frozen_of(ranker: Ranker) -> dict[str, Any]:
    """The base parameters, and the item vectors where the verbaliser has them."""
    params = params_of(ranker.module.config)
    vectors = jax.eval_shape(ranker.item_vectors, params) if ranker.ranks_catalogue else None
    return {"params": params, "vectors": vectors}
