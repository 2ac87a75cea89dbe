"""Two layouts of the same weights: one sub-tree a block, or all blocks of a stack in one with a leading layer axis.

`T5Config.scan_layers` compiles one block and loops over it, which needs the second layout in memory (stacking inside
the step would copy the whole model). Files are always in the first. Works on parameters and on adapters alike.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from delrec_jax.errors import UserError

Tree = dict[str, Any]
STACKED = "blocks"
_BLOCK = re.compile(r"block_(\d+)")


def stack_layers(tree: Tree) -> Tree:
    """`STACK/block_i/...` leaves [...] of every i into `STACK/blocks/...` leaves [L, ...].

    Raises:
      UserError: blocks of one stack that hold different leaves (adapters on some layers alone).
    """
    return {name: _stack(name, part) for name, part in tree.items()}


def _stack(name: str, part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    blocks = sorted((int(m[1]), key) for key in part if (m := _BLOCK.fullmatch(key)))
    if not blocks:
        return part
    trees = [part[key] for _, key in blocks]
    if len({jax.tree.structure(tree) for tree in trees}) > 1:
        raise UserError(
            f"{name}: its blocks hold different weights, so lm.t5.scan_layers cannot stack them: set it to False, or "
            "adapt the same projections in every block"
        )
    rest = {key: value for key, value in part.items() if not _BLOCK.fullmatch(key)}
    return rest | {STACKED: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)}


def unstack_layers(tree: Tree) -> Tree:
    """The inverse of `stack_layers`; a tree that is not stacked comes back as it is."""
    return {name: _unstack(part) for name, part in tree.items()}


def _unstack(part: Any) -> Any:
    if not isinstance(part, dict) or STACKED not in part:
        return part
    rest = {key: value for key, value in part.items() if key != STACKED}
    layers = jax.tree.leaves(part[STACKED])[0].shape[0]
    for index in range(layers):
        rest[f"block_{index}"] = jax.tree.map(lambda leaf, i=index: leaf[i], part[STACKED])
    return rest
