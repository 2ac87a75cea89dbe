"""Tiny T5s whose every width differs, so that no transposed or exchanged tensor goes unseen."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_config import T5Config

GATED = T5Config(
    vocab_size=40,
    d_model=12,
    d_kv=5,
    d_ff=20,
    num_layers=1,
    num_decoder_layers=2,
    num_heads=3,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=16,
)
V10 = replace(GATED, feed_forward_proj="relu", tie_word_embeddings=True)


def visible_params(config: T5Config, seed: int = 0):
    """Weights drawn by NumPy: norms off 1, kernels so large that every path carries a signal."""
    ids = jnp.ones((1, 2), jnp.int32)
    tree = jax.eval_shape(T5(config).init, jax.random.key(0), ids, ids)["params"]
    generator = np.random.default_rng(seed)
    flat = {}
    for path, leaf in sorted(traverse_util.flatten_dict(tree).items()):
        noise = generator.normal(size=leaf.shape).astype(np.float32)
        if path[-1] == "weight":
            flat[path] = jnp.asarray(1 + 0.3 * noise)
        elif path[-1] == "kernel":
            flat[path] = jnp.asarray(0.35 * noise)
        else:
            flat[path] = jnp.asarray(noise)
    return traverse_util.unflatten_dict(flat)


@pytest.fixture(scope="session")
def gated():
    """Flan's kind: gated GELU, a head of its own; (config, params)."""
    return GATED, visible_params(GATED)


@pytest.fixture(scope="session")
def v10():
    """T5 v1.0's kind: ReLU, tied head; (config, params)."""
    return V10, visible_params(V10)


@pytest.fixture(scope="session", params=["gated", "v10"])
def either(request, gated, v10):
    return {"gated": gated, "v10": v10}[request.param]
