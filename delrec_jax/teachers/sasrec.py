"""SASRec: self-attention over the history, trained with cross-entropy over all items.

Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), in the form
that holds up today: pre-LN blocks, the item table tied to the output, a label at every
position and a softmax over the whole catalogue instead of one sampled negative.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.teachers.protocol import PADDING, next_item_cross_entropy

_INIT = nn.initializers.normal(stddev=0.02)


@dataclass(frozen=True)
class SASRecConfig:
    """The shape of the model.

    Attributes:
        width: D, of items, positions and blocks.
        layers: number of blocks.
        heads: attention heads; they share the width.
        max_length: L, the most recent items that are read.
        dropout: rate on embeddings and on both branches of a block, in training.
    """

    width: int = 64
    layers: int = 2
    heads: int = 2
    max_length: int = 50
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"teacher.{name}: {getattr(self, name)} must be at least 1")
        if self.width % self.heads:
            raise UserError(
                f"teacher.heads: {self.heads} heads cannot share teacher.width={self.width} "
                "equally; choose a divisor of the width"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"teacher.dropout: {self.dropout} must be in [0, 1)")


class Block(nn.Module):
    """One pre-LN block: causal self-attention, then a point-wise network of 4 D."""

    config: SASRecConfig

    @nn.compact
    def __call__(self, x: Array, mask: Array, *, deterministic: bool) -> Array:
        """Maps [B, L, D] to [B, L, D]; mask [B, 1, L, L] is True where a query may look."""
        width, heads = self.config.width, self.config.heads
        dropout = nn.Dropout(self.config.dropout, deterministic=deterministic)
        normed = nn.LayerNorm(name="attention_norm")(x)
        query, key, value = (
            nn.DenseGeneral((heads, width // heads), kernel_init=_INIT, name=name)(normed)
            for name in ("query", "key", "value")
        )  # [B, L, heads, D / heads]
        mixed = jax.nn.dot_product_attention(query, key, value, mask=mask)
        mixed = nn.DenseGeneral(width, axis=(-2, -1), kernel_init=_INIT, name="out")(mixed)
        x = x + dropout(mixed)
        normed = nn.LayerNorm(name="feed_forward_norm")(x)
        inner = nn.gelu(nn.Dense(4 * width, kernel_init=_INIT, name="wi")(normed))
        return x + dropout(nn.Dense(width, kernel_init=_INIT, name="wo")(inner))


class SASRec(nn.Module):
    """The network: histories to hidden states, and hidden states to scores."""

    config: SASRecConfig
    num_items: int

    def setup(self) -> None:
        """Names the parts; the item table serves as input and as output."""
        config = self.config
        self.items = nn.Embed(self.num_items, config.width, embedding_init=_INIT)
        self.positions = nn.Embed(config.max_length, config.width, embedding_init=_INIT)
        self.blocks = [Block(config) for _ in range(config.layers)]
        self.final_norm = nn.LayerNorm()
        self.dropout = nn.Dropout(config.dropout)

    def __call__(
        self, histories: Int[Array, "B L"], deterministic: bool = True
    ) -> Float[Array, "B L D"]:
        """The hidden state after each item; states at padding mean nothing.

        Positions count from the right end, so the most recent item has the same one
        however much padding stands on the left.

        Args:
            histories: item indices, left-padded with -1, L <= max_length.
            deterministic: False drops out, with the random stream "dropout".

        Raises:
            ValueError: the histories are longer than the position table.
        """
        length = histories.shape[1]
        if length > self.config.max_length:
            raise ValueError(f"history of {length} items, positions for {self.config.max_length}")
        valid = histories >= 0  # [B, L]
        embedded = self.items(jnp.maximum(histories, 0)) * self.config.width**0.5
        embedded = jnp.where(valid[..., None], embedded, 0.0)
        from_right = jnp.arange(length - 1, -1, -1)
        x = self.dropout(embedded + self.positions(from_right), deterministic=deterministic)
        mask = _attention_mask(valid)
        for block in self.blocks:
            x = block(x, mask, deterministic=deterministic)
        return self.final_norm(x)

    def logits(
        self, histories: Int[Array, "B L"], deterministic: bool = True
    ) -> Float[Array, "B L I"]:
        """The scores of all items after each position: for training."""
        return self.items.attend(self(histories, deterministic))

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """The scores of all items after the last position; only max_length items are read."""
        hidden = self(histories[:, -self.config.max_length :])
        return self.items.attend(hidden[:, -1])


def _attention_mask(valid: Array) -> Array:
    """Bool [B, 1, L, L]: earlier and present items, never padding.

    Every query may look at itself: a padding query would else spread over all keys, and
    an empty history would score differently with more padding.
    """
    length = valid.shape[1]
    causal = jnp.tril(jnp.ones((length, length), dtype=bool))
    return ((causal & valid[:, None, :]) | jnp.eye(length, dtype=bool))[:, None]


class SASRecTeacher(struct.PyTreeNode):
    """A trained SASRec as a `Teacher`: the module with its parameters.

    Attributes:
        params: the parameter tree of the module.
        module: the network.
    """

    params: Any
    module: SASRec = struct.field(pytree_node=False)

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """See `Teacher.scores`."""
        return cast(Array, self.module.apply({"params": self.params}, histories, method="scores"))


def init_params(module: SASRec, key: jax.Array) -> Any:
    """Fresh parameters of `module` from one key."""
    histories = jnp.full((1, module.config.max_length), PADDING, dtype=jnp.int32)
    return jax.jit(module.init)(key, histories)["params"]


def sequence_loss(
    params: Any, module: SASRec, *, batch: Mapping[str, Int[Array, "B L"]], key: jax.Array | None
) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
    """Cross-entropy over all items at every position that has a label.

    Args:
        params: the parameter tree; the loss is differentiable in it.
        module: the network.
        batch: "inputs" and "labels" as `training_windows` makes them.
        key: randomness of dropout; None for no dropout (validation).

    Returns:
        `(losses, weights)` as of `next_item_cross_entropy`.
    """
    rngs = None if key is None else {"dropout": key}
    logits = module.apply(
        {"params": params}, batch["inputs"], key is None, method="logits", rngs=rngs
    )
    return next_item_cross_entropy(cast(Array, logits), batch["labels"])


def training_windows(
    offsets: Int[np.ndarray, " U+1"], items: Int[np.ndarray, " N"], *, length: int
) -> tuple[Int[np.ndarray, "W L"], Int[np.ndarray, "W L"]]:
    """Cuts each user's sequence into windows that hold every label exactly once.

    A user with n items has n - 1 labels. They are cut from the end into windows of
    `length`, so a user's last window is full where possible and the first is padded.

    Args:
        offsets: user u owns items[offsets[u]:offsets[u + 1]], in time order.
        items: item indices of all users, training part only.
        length: L, labels a window; at most the model's `max_length`.

    Returns:
        `(inputs, labels)`, int32, left-padded with -1, rows in order of user and time;
        labels[w, l] came directly after inputs[w, l].

    Raises:
        UserError: no user has two items, so there is nothing to learn from.
    """
    labels_of_user = np.maximum(np.diff(offsets) - 1, 0)  # [U]
    if not labels_of_user.any():
        raise UserError(
            "teacher: no user has two interactions in the training part, so there is no "
            "next item to learn; lower data.k_core or data.min_rating, or bring more data"
        )
    last_row = np.cumsum(-(-labels_of_user // length)) - 1  # [U]
    user = np.repeat(np.arange(len(labels_of_user)), labels_of_user)
    first = np.cumsum(labels_of_user) - labels_of_user
    nth = np.arange(len(user)) - first[user]  # 0 is the label after the user's first item
    from_end = labels_of_user[user] - 1 - nth
    row, column = last_row[user] - from_end // length, length - 1 - from_end % length
    source = offsets[user] + nth
    inputs = np.full((last_row[-1] + 1, length), PADDING, dtype=np.int32)
    labels = inputs.copy()
    inputs[row, column] = items[source]
    labels[row, column] = items[source + 1]
    return inputs, labels
