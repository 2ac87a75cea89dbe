"""What the trained teachers share: a network from items to states, a loss on states, and scores of the whole catalogue.

A network is a Linen module with

    __call__(items [B, L], segments [B, L] | None, deterministic) -> states [B, L, D]   at every position
    last(items [B, L]) -> state [B, D]                                                  at the last position, for scores
    table() -> [I, D]                                                                   one output vector an item

whose state at a position depends on the items of its own segment up to there. Scores are `states @ table.T`. A new
teacher is a new module of that form: loss, training rows, selection, lists and evaluation are the same for all.
"""

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.teachers.losses import LossConfig, next_item_loss
from delrec_jax.teachers.protocol import PADDING

ITEM_INIT = nn.initializers.normal(stddev=0.02)


class NetworkTeacher(struct.PyTreeNode):
    """A trained network as a `Teacher`.

    Attributes:
        params: the parameter tree of the module.
        module: the network.
    """

    params: Any
    module: nn.Module = struct.field(pytree_node=False)

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """The scores of all items after the last position; only the latest `max_length` items are read."""
        return cast(Array, self.module.apply({"params": self.params}, histories, method=_scores))


def _scores(module: Any, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
    return module.last(histories[:, -module.config.max_length :]) @ module.table().T


def init_params(module: Any, key: jax.Array) -> Any:
    """Fresh parameters of `module` from one key."""
    histories = jnp.full((1, module.config.max_length), PADDING, dtype=jnp.int32)
    return jax.jit(module.init)(key, histories)["params"]


def sequence_loss(
    params: Any,
    module: Any,
    *,
    batch: Mapping[str, Int[Array, "B L"]],
    config: LossConfig,
    key: jax.Array,
    deterministic: bool = False,
) -> tuple[Float[Array, "1"], Float[Array, "1"]]:
    """The mean loss of a batch at every position that has a label, and the number of labels.

    The one loss whose mean is taken here and not by the step: over all items, losses of single labels would need a second
    pass over the catalogue (`losses.cross_entropy_sum`).

    Args:
        params: the parameter tree; the loss is differentiable in it.
        module: the network.
        batch: "items", "labels" and "segments" of `windows.TrainingRows`.
        config: which loss.
        key: of dropout and negatives.
        deterministic: no dropout.
    """
    dropout, negatives = jax.random.split(key)

    def states_and_table(module, items, segments):
        return module(items, segments, deterministic), module.table()

    states, table = module.apply(
        {"params": params},
        batch["items"],
        batch["segments"],
        rngs={"dropout": dropout},
        method=states_and_table,
    )
    total, count = next_item_loss(states, table, batch["labels"], config=config, key=negatives)
    return (total / jnp.maximum(count, 1.0))[None], count[None]


def check_shape(teacher: str, config: Any, sizes: tuple[str, ...]) -> None:
    """Checks what every network's config has: sizes of at least 1, and a dropout rate.

    Raises:
        UserError: naming the key.
    """
    for name in sizes:
        if getattr(config, name) < 1:
            raise UserError(f"teacher.{teacher}.{name}: {getattr(config, name)} must be at least 1")
    if not 0 <= config.dropout < 1:
        raise UserError(f"teacher.{teacher}.dropout: {config.dropout} must be in [0, 1)")


def look_up(table: nn.Embed, items: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    """The items' vectors; zeros at padding and unknown items."""
    return jnp.where((items >= 0)[..., None], table(jnp.maximum(items, 0)), 0.0)


def segments_of(items: Int[Array, "B L"], segments: Int[Array, "B L"] | None) -> Int[Array, "B L"]:
    """Segment numbers; a history that is alone in its row is segment 1 from its first known item on, padding is 0."""
    if segments is not None:
        return segments
    return jax.lax.cummax((items >= 0).astype(jnp.int32), axis=1)


def steps_to_end(segments: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """How many places of its own segment follow each place: 0 at the most recent item."""
    length = segments.shape[1]
    place = jnp.arange(length)
    following = jnp.pad(segments[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    ends = jnp.where(segments != following, place, length)
    return jax.lax.cummin(ends, axis=1, reverse=True) - place
