"""Hugging Face's names of T5's tensors and the paths of our tree: one table, read in both directions.

The two templates of a row share their fields, so each is a pattern to match in one direction and a template to fill in the
other. T5 v1.0 (`wi`), v1.1 and Flan (`wi_0`, `wi_1`) need no separate tables. The table's paths are those of the unrolled
layout (layers.py); a `Leaf` knows the names of the tensors that it is made of in either layout.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from delrec_jax.language.layers import STACKED
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_config import T5Config

TreePath = tuple[str, ...]

_FIELDS = {
    "stack": "encoder|decoder",
    "i": r"\d+",
    "projection": "[qkvo]",
    "dense": "wi|wi_0|wi_1|wo",
}
# Theirs, ours, whether it is a kernel: PyTorch stores kernels [out, in], we [in, out].
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

TABLE_NAME = "shared.weight"
HEAD_NAME = "lm_head.weight"
# Other names of the token table; some files hold it twice, some only under one of these.
TABLE_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# A bias that files from 2020 contain and no T5 uses; `transformers` skips it too.
IGNORED = frozenset({"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"})


def _pattern(template: str) -> re.Pattern[str]:
    """Returns the template as a pattern, with each field as a named group."""
    literal = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(literal.format(**{name: f"(?P<{name}>{p})" for name, p in _FIELDS.items()}))


class _Row(NamedTuple):
    theirs: str
    ours: str
    transposed: bool
    their_pattern: re.Pattern[str]
    our_pattern: re.Pattern[str]


_ROWS = tuple(
    _Row(f"{theirs}.weight", ours, kernel, _pattern(f"{theirs}.weight"), _pattern(ours))
    for theirs, ours, kernel in _TABLE
)


def our_path(name: str) -> tuple[TreePath, bool] | None:
    """Returns where a tensor of a file belongs.

    Args:
      name: Hugging Face's name.

    Returns:
      The path in the unrolled tree and whether the tensor is transposed there; None if T5 has no such tensor.
    """
    if name in TABLE_ALIASES:
        name = TABLE_NAME
    for row in _ROWS:
        if found := row.their_pattern.fullmatch(name):
            return tuple(row.ours.format(**found.groupdict()).split("/")), row.transposed
    return None


def hf_name(path: TreePath) -> tuple[str, bool]:
    """The inverse of `our_path`.

    Args:
      path: path of a leaf in the unrolled tree.

    Returns:
      Hugging Face's name and whether the tensor is transposed there.

    Raises:
      KeyError: T5 has no such leaf.
    """
    for row in _ROWS:
        if found := row.our_pattern.fullmatch("/".join(path)):
            return row.theirs.format(**found.groupdict()), row.transposed
    raise KeyError("/".join(path))


class Leaf(NamedTuple):
    """A leaf of our tree and the tensors that it is made of: one, or one per layer if layers are stacked."""

    path: TreePath
    shape: tuple[int, ...]
    dtype: np.dtype
    names: tuple[str, ...]
    transposed: bool

    @property
    def stacked(self) -> bool:
        """Whether the first axis is layers."""
        return STACKED in self.path

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of each tensor in its file."""
        shape = self.shape[1:] if self.stacked else self.shape
        return shape[::-1] if self.transposed else shape


def leaves(config: T5Config) -> list[Leaf]:
    """Returns all leaves of this model, found by tracing the model without making weights."""
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    module = T5(replace(config, adapters=None, attention="xla"))  # cuDNN cannot be traced on CPU
    tree = jax.eval_shape(module.init, jax.random.key(0), ids, ids)["params"]
    found = []
    for path, leaf in traverse_util.flatten_dict(tree).items():
        named = [hf_name(one) for one in unrolled_paths(path, leaf.shape)]
        names = tuple(name for name, _ in named)
        found.append(Leaf(path, leaf.shape, leaf.dtype, names, transposed=named[0][1]))
    return found


def unrolled_paths(path: TreePath, shape: Sequence[int]) -> list[TreePath]:
    """Returns the leaf's own path, or one path per layer if its first axis is layers."""
    if STACKED not in path:
        return [path]
    return [
        tuple(f"block_{layer}" if part == STACKED else part for part in path)
        for layer in range(shape[0])
    ]
