"""Two layouts of the same weights: one subtree per block, or one for all blocks of a stack, with a leading layer axis.

`T5Config.scan_layers` compiles one block and loops over it, which needs the second layout in memory (stacking inside
the step would copy the entire model). Files always have the first. Both parameters and adapters can be converted.
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
    """Stacks the leaves `STACK/block_i/...` [...] of every i into leaves `STACK/blocks/...` [L, ...].

    Raises:
      UserError: the blocks of a stack hold different leaves (adapters on some layers only).
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
    """The inverse of `stack_layers`; a tree that is not stacked is returned as it is."""
    return {name: _unstack(part) for name, part in tree.items()}


def _unstack(part: Any) -> Any:
    if not isinstance(part, dict) or STACKED not in part:
        return part
    rest = {key: value for key, value in part.items() if key != STACKED}
    layers = jax.tree.leaves(part[STACKED])[0].shape[0]
    for index in range(layers):
        rest[f"block_{index}"] = jax.tree.map(lambda leaf, i=index: leaf[i], part[STACKED])
    return rest
