"""Hugging Face's names of T5's tensors; T5 v1.0 (`wi`), v1.1 and Flan (`wi_0`, `wi_1`) need no separate tables."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.weight_names import Leaf, Names, named_leaves

_TABLE = (
    ("shared", "shared/embedding", False),
    ("lm_head", "lm_head/kernel", True),
    ("{stack}.final_layer_norm", "{stack}/final_layer_norm/weight", False),
    (
        "{stack}.block.0.layer.0.SelfAttention.relative_attention_bias",
        "{stack}/relative_attention_bias/embedding",
        False,
    ),
    ("{stack}.block.{i}.layer.0.layer_norm", "{stack}/block_{i}/self_norm/weight", False),
    (
        "{stack}.block.{i}.layer.0.SelfAttention.{projection}",
        "{stack}/block_{i}/SelfAttention/{projection}/kernel",
        True,
    ),
    ("encoder.block.{i}.layer.1.layer_norm", "encoder/block_{i}/ff_norm/weight", False),
    (
        "encoder.block.{i}.layer.1.DenseReluDense.{dense}",
        "encoder/block_{i}/DenseReluDense/{dense}/kernel",
        True,
    ),
    ("decoder.block.{i}.layer.1.layer_norm", "decoder/block_{i}/cross_norm/weight", False),
    (
        "decoder.block.{i}.layer.1.EncDecAttention.{projection}",
        "decoder/block_{i}/EncDecAttention/{projection}/kernel",
        True,
    ),
    ("decoder.block.{i}.layer.2.layer_norm", "decoder/block_{i}/ff_norm/weight", False),
    (
        "decoder.block.{i}.layer.2.DenseReluDense.{dense}",
        "decoder/block_{i}/DenseReluDense/{dense}/kernel",
        True,
    ),
)
HEAD_NAME = "lm_head.weight"
# A bias that files from 2020 contain and no T5 uses; `transformers` skips it too.
_OF_2020 = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"

T5_NAMES = Names(
    model="T5",
    table=tuple((f"{theirs}.weight", ours, kernel) for theirs, ours, kernel in _TABLE),
    fields={
        "stack": "encoder|decoder",
        "i": r"\d+",
        "projection": "[qkvo]",
        "dense": "wi|wi_0|wi_1|wo",
    },
    # Other names of the token table; some files hold it twice, some only under one of these.
    renamed=((r"^(encoder|decoder)\.embed_tokens\.weight$", "shared.weight"),),
    ignored=_OF_2020,
)
ENCODER_NAMES = replace(T5_NAMES, ignored=r"(decoder|lm_head)\..*")
"""The same names for T5's encoder alone, which leaves the rest of a directory unread."""


def names_of(config: T5Config) -> Names:
    """Returns the names of all tensors that a model of this shape reads."""
    return ENCODER_NAMES if config.encoder_alone else T5_NAMES


def leaves(config: T5Config) -> list[Leaf]:
    """Returns all leaves of this model, found by tracing the model without making weights."""
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    module = T5(replace(config, adapters=None, attention="xla"))  # cuDNN cannot be traced on CPU
    if config.encoder_alone:
        found = jax.eval_shape(partial(module.init, method="states"), jax.random.key(0), ids)
    else:
        found = jax.eval_shape(module.init, jax.random.key(0), ids, ids)
    return named_leaves(found["params"], names_of(config))
