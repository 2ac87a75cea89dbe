"""Initializes a small T5 so that it learns look-ups within minutes when trained from scratch.

A T5 with random weights must first discover that equal tokens can attend to each other and that what is attended to can
be output. Three changes to the initialization, and none to the model, spare it that search: keys start close to queries
(equal tokens attract each other), output projections close to transposed value projections (what is attended to is
passed on), and the vocabulary head close to the embedding table (what is passed on is predicted).
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from delrec_jax.language.layer_stacking import stack_layers
from delrec_jax.language.t5 import T5

_KEY_LIKE_QUERY, _KEY_NOISE = 0.6, 0.8
_OUTPUT_LIKE_VALUE, _OUTPUT_NOISE = 0.8, 0.6


def init_for_copying(module: T5, key: jax.Array) -> Any:
    """Returns parameters of an untrained T5, biased toward attending to equal tokens and copying them."""
    ids = jnp.ones((1, 2), jnp.int32)
    unrolled = T5(replace(module.config, scan_layers=False))
    flat = traverse_util.flatten_dict(unrolled.init(key, ids, ids)["params"])
    for path in list(flat):
        if path[-2] == "k":
            query = flat[(*path[:-2], "q", "kernel")]
            like = query / query.std() * flat[path].std()
            flat[path] = _KEY_LIKE_QUERY * like + _KEY_NOISE * flat[path]
        elif path[-2] == "o":
            value = flat[(*path[:-2], "v", "kernel")].T
            like = value / value.std() * flat[path].std()
            flat[path] = _OUTPUT_LIKE_VALUE * like + _OUTPUT_NOISE * flat[path]
    if ("lm_head", "kernel") in flat:
        flat["lm_head", "kernel"] = flat["shared", "embedding"].T * module.config.d_model**-0.5
    params = traverse_util.unflatten_dict(flat)
    return stack_layers(params) if module.config.scan_layers else params
