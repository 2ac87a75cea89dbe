"""What the trained teachers share: a network from items to states, a loss on states, and scores of the whole catalogue.

A network is a Linen module, made as `Network(config, num_items, way="own")` from a frozen config that has `width`,
`max_length` and `dropout`, with a `title` for tables, an `item_table.ItemTable` that is called `items` (its rows are split and
started by that name), and with

    __call__(items [B, L], segments [B, L] | None, deterministic) -> states [B, L, D]   at every position
    last(items [B, L]) -> state [B, D]                                                  at the last position, for scores
    table() -> [I, D]                                                                   one output vector per item

whose state at a position depends only on the items of its segment up to that position and, in SASRec, on how many follow.
Scores are `states @ table.T`, plus one bias per item where the parameters have an `output_bias` of their own (`init_params`):
it learns how popular an item is, so that the vectors need not. A new teacher is a new module of that form: loss, training
rows, selection, lists and evaluation are the same for all.

A network whose `item_table` is made from text vectors is given them as `text` [I, E] in addition to its parameters, and
becomes an ordinary one again when it is `baked`.
"""

from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.padding import PAD_ITEM
from delrec_jax.precision import EXACT
from delrec_jax.teachers.losses import LossConfig, next_item_loss
from delrec_jax.teachers.windows import TrainingRows

ITEM_STD = 0.02
ITEM_INIT = nn.initializers.normal(stddev=ITEM_STD)

OUTPUT_BIAS = "output_bias"
"""The key, among a network's parameters, of one bias per item [I]; it is added to the scores and is not part of the module."""

BY_ITEM = (("items", "embedding"), ("items", "vectors"), ("text",), (OUTPUT_BIAS,))
"""Ends of the paths of arrays with one row per item: the item table, text vectors as variables or as an argument, the bias."""


class NetworkTeacher(struct.PyTreeNode):
    """A trained network as a `Teacher`.

    Attributes:
      params: the parameter tree of the module.
      module: the network.
      text: the items' text vectors [I, E], if the network reads them.
    """

    params: Any
    module: nn.Module = struct.field(pytree_node=False)
    text: Any = None

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """The scores of all items after the last position; only the latest `max_length` items are read."""
        chex.assert_rank(histories, 2)
        variables = _variables(self.params, self.text)
        scores = cast(Array, self.module.apply(variables, histories, method=_scores))
        return scores + self.params[OUTPUT_BIAS] if OUTPUT_BIAS in self.params else scores


def _scores(module: Any, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
    states = module.last(histories[:, -module.config.max_length :])
    return jnp.matmul(states, module.table().T, precision=EXACT)  # [B, I]


def _variables(params: Any, text: Any) -> dict[str, Any]:
    """The variables that a module is applied to."""
    return {"params": params} | ({} if text is None else {"text": {"items": {"vectors": text}}})


def init_params(
    module: Any,
    key: jax.Array,
    text: Float[Array, "I E"] | None = None,
    *,
    output_bias: bool = False,
) -> Any:
    """Fresh parameters of a network.

    Args:
      module: the network.
      key: random key.
      text: text vectors, if the network reads them; they are not parameters.
      output_bias: whether scores have one bias per item, which starts at 0.
    """
    histories = jnp.full((1, module.config.max_length), PAD_ITEM, dtype=jnp.int32)

    def start(key: jax.Array, text: Array | None) -> Any:
        # Like `module.init`, which takes no variables.
        given = {name: of for name, of in _variables({}, text).items() if name != "params"}
        return module.apply(given, histories, rngs={"params": key}, mutable=["params"])[1]["params"]

    params = jax.jit(start)(key, text)
    return {**params, OUTPUT_BIAS: jnp.zeros(module.num_items)} if output_bias else params


def initialised(params: Any, vectors: Float[np.ndarray, "I E"], std: float = ITEM_STD) -> Any:
    """Parameters of a plain network whose item table starts as these vectors.

    Args:
      params: from `init_params`, of a network with a table of its own.
      vectors: have variance 1 over all their numbers (`text_vectors.principal`), with E at most the table's width; columns
        that they do not fill keep their initial values.
      std: factor for the vectors: the scale of a plain table.

    Raises:
      ValueError: the vectors do not fit into the table, or the table is not a plain one.
    """
    if set(params["items"]) != {"embedding"}:
        raise ValueError(
            f"only a plain item table can start as vectors; this one has {sorted(params['items'])}"
        )
    own = params["items"]["embedding"]
    (rows, columns), (items, width) = vectors.shape, own.shape
    if rows != items or columns > width:
        raise ValueError(f"vectors {vectors.shape} do not fit into the item table {own.shape}")
    started = jnp.concatenate([std * jnp.asarray(vectors, own.dtype), own[:, columns:]], axis=1)
    return {**params, "items": {"embedding": started}}


def baked(params: Any, module: Any, text: Float[Array, "I E"]) -> Any:
    """Parameters of a plain network with the same scores: its item table is made once and kept as a parameter.

    Args:
      params: the trained parameters.
      module: the network that reads text vectors.
      text: the text vectors that it was trained with.

    Returns:
      Parameters of the same network with `way="own"`.
    """
    table = jax.jit(lambda params, text: module.apply(_variables(params, text), method="table"))(
        params, text
    )
    return {**params, "items": {"embedding": table}}


def sequence_loss(
    params: Any,
    module: Any,
    *,
    batch: TrainingRows,
    config: LossConfig,
    key: jax.Array,
    deterministic: bool = False,
    text: Float[Array, "I E"] | None = None,
    known: Bool[np.ndarray, " I"] | None = None,
    ways: int = 1,
) -> tuple[Float[Array, "1"], Float[Array, "1"]]:
    """The mean loss of a batch over all positions that have a label, and the number of labels.

    The only loss whose mean is taken here and not by the step: over all items, losses of single labels would need a second
    pass over the catalogue (`losses.cross_entropy_sum`).

    Args:
      params: the parameter tree; the loss is differentiable in it.
      module: the network.
      batch: rows of `windows.training_rows`.
      config: which loss.
      key: random key of dropout and negatives.
      deterministic: True turns dropout off.
      text: text vectors, if the network reads them.
      known: items with a training interaction; only these are negatives. A constant of the compiled step. Without it, a
        network that reads texts would learn that whatever the text of a new item says is a sign against it. Every label
        must be known (`check_labels`); an unknown one would count as no label.
      ways: over how many devices the batch is divided.
    """
    dropout, negatives = jax.random.split(key)

    def states_and_table(module: Any, items: Array, segments: Array) -> tuple[Array, Array]:
        """Both outputs of one call of the network: states [B, L, D] and the output table [I, D]."""
        return module(items, segments, deterministic), module.table()

    states, table = module.apply(
        _variables(params, text),
        batch.items,
        batch.segments,
        rngs={"dropout": dropout},
        method=states_and_table,
    )  # [B, L, D], [I, D]
    if OUTPUT_BIAS in params:  # as one more column, so that the losses need not know of it
        states = jnp.concatenate([states, jnp.ones_like(states[..., :1])], axis=-1)  # [B, L, D + 1]
        table = jnp.concatenate([table, params[OUTPUT_BIAS][:, None]], axis=-1)  # [I, D + 1]
    table, labels = _among_known(table, batch.labels, known)
    total, count = next_item_loss(states, table, labels, config=config, key=negatives, ways=ways)
    return (total / jnp.maximum(count, 1.0))[None], count[None]


def _among_known(
    table: Float[Array, "I D"], labels: Int[Array, "B L"], known: Bool[np.ndarray, " I"] | None
) -> tuple[Array, Array]:
    """The rows of the known items, and the labels as indices of these rows."""
    if known is None or known.all():
        return table, labels
    if known.shape != table.shape[:1]:
        raise ValueError(f"known {known.shape} for {table.shape[0]} items")
    number = np.where(known, np.cumsum(known) - 1, PAD_ITEM).astype(np.int32)  # [I]
    renumbered = jnp.where(labels >= 0, jnp.asarray(number)[jnp.maximum(labels, 0)], PAD_ITEM)
    return table[np.flatnonzero(known)], renumbered


def check_labels(labels: Int[np.ndarray, "R L"], known: Bool[np.ndarray, " I"]) -> None:
    """Checks once, before training, that every label is a known item, which a compiled step could not report.

    Raises:
      ValueError: a label is not a known item.
    """
    asked = np.unique(labels[labels >= 0])
    unknown = asked[~known[asked]]
    if len(unknown):
        raise ValueError(f"{len(unknown)} labels are not known items; the first is {unknown[0]}")


def check_shape(teacher: str, config: Any, sizes: tuple[str, ...]) -> None:
    """Checks what every network's config has: sizes of at least 1, and a dropout rate.

    Raises:
      UserError: names the key.
    """
    for name in sizes:
        if getattr(config, name) < 1:
            raise UserError(f"teacher.{teacher}.{name}: {getattr(config, name)} must be at least 1")
    if not 0 <= config.dropout < 1:
        raise UserError(f"teacher.{teacher}.dropout: {config.dropout} must be in [0, 1)")


def look_up(table: Float[Array, "I D"], items: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    """The items' rows of the table; zeros at padding and unknown items."""
    found = jnp.take(table, jnp.maximum(items, 0), axis=0)  # [B, L, D]
    return jnp.where((items >= 0)[..., None], found, 0.0)


def segments_of(items: Int[Array, "B L"], segments: Int[Array, "B L"] | None) -> Int[Array, "B L"]:
    """Segment numbers; a history alone in its row is segment 1 from its first known item on, and padding is 0."""
    if segments is not None:
        return segments
    return jax.lax.cummax((items >= 0).astype(jnp.int32), axis=1)


def steps_to_end(segments: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """Number of positions of the same segment after each position: 0 at the most recent item."""
    length = segments.shape[1]
    place = jnp.arange(length)
    following = jnp.pad(segments[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    ends = jnp.where(segments != following, place, length)
    return jax.lax.cummin(ends, axis=1, reverse=True) - place


def axes_of(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """Names the first axis `items` in arrays with one row per item; other parameters are only a few hundred kilobytes.

    Args:
      path: names of the leaf's keys.
      shape: shape of the leaf.
    """
    rows: str | None = "items" if any(path[-len(end) :] == end for end in BY_ITEM) else None
    return (rows, *[None] * (len(shape) - 1)) if shape else ()
