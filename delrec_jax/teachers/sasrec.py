"""SASRec: self-attention over the history, trained with cross-entropy over all items.

Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), in the form
that holds up today: pre-LN blocks, an item table tied to the output, a label at every
position, and a softmax over the whole catalogue instead of one sampled negative.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.dropout import Dropout
from delrec_jax.errors import UserError
from delrec_jax.teachers.item_table import ItemTable
from delrec_jax.teachers.network import ITEM_INIT, check_shape, look_up, segments_of, steps_to_end


@dataclass(frozen=True)
class SASRecConfig:
    """The shape of the model.

    Attributes:
      width: D, size of item vectors, position vectors and states.
      layers: number of blocks.
      heads: H, number of attention heads, which share the width.
      max_length: L, number of most recent items that are read.
      dropout: rate on embeddings and on both branches of a block, in training.
    """

    width: int = 64
    layers: int = 2
    heads: int = 2
    max_length: int = 50
    dropout: float = 0.3

    def __post_init__(self) -> None:
        check_shape("sasrec", self, ("width", "layers", "heads", "max_length"))
        if self.width % self.heads:
            raise UserError(
                f"teacher.sasrec.heads: {self.heads} heads cannot share teacher.sasrec.width={self.width} "
                "equally; choose a divisor of the width"
            )


class Block(nn.Module):
    """One pre-LN block: causal self-attention, then a position-wise network of width 4 D."""

    config: SASRecConfig

    @nn.compact
    def __call__(
        self, x: Array, mask: Array, *, deterministic: bool, only_last: bool = False
    ) -> Array:
        """Maps [B, L, D] to [B, Q, D] with Q = L, or with Q = 1 for the last position alone.

        Args:
          x: states of all positions.
          mask: bool [B, 1, L, L], True where a query (row) may attend to a key (column).
          deterministic: True turns dropout off.
          only_last: computes the last position only; the others serve as keys and values.
        """
        width, heads = self.config.width, self.config.heads
        dropout = Dropout(self.config.dropout)
        normed = nn.LayerNorm(name="attention_norm")(x)
        asking = normed
        if only_last:
            x, asking, mask = x[:, -1:], normed[:, -1:], mask[:, :, -1:]
        query, key, value = (
            nn.DenseGeneral((heads, width // heads), kernel_init=ITEM_INIT, name=name)(places)
            for name, places in (("query", asking), ("key", normed), ("value", normed))
        )  # query [B, Q, H, D / H], key and value [B, L, H, D / H]
        mixed = jax.nn.dot_product_attention(query, key, value, mask=mask)  # [B, Q, H, D / H]
        mixed = nn.DenseGeneral(width, axis=(-2, -1), kernel_init=ITEM_INIT, name="out")(mixed)
        x = x + dropout(mixed, deterministic=deterministic)  # [B, Q, D]
        normed = nn.LayerNorm(name="feed_forward_norm")(x)
        inner = nn.gelu(nn.Dense(4 * width, kernel_init=ITEM_INIT, name="wi")(normed))
        outer = nn.Dense(width, kernel_init=ITEM_INIT, name="wo")(inner)
        out: Array = x + dropout(outer, deterministic=deterministic)
        return out


class SASRec(nn.Module):
    """The network, with the interface that `network` describes."""

    title = "SASRec"

    config: SASRecConfig
    num_items: int
    way: str = "own"  # mode of the item table, see `ItemTable`

    def setup(self) -> None:
        """Makes the layers; the item table serves both as input and as output."""
        config = self.config
        self.items = ItemTable(self.num_items, config.width, self.way)
        self.positions = nn.Embed(config.max_length, config.width, embedding_init=ITEM_INIT)
        self.blocks = [Block(config) for _ in range(config.layers)]
        self.final_norm = nn.LayerNorm()
        self.dropout = Dropout(config.dropout)

    def __call__(
        self,
        items: Int[Array, "B L"],
        segments: Int[Array, "B L"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B L D"]:
        """The state after each item; states at padding are meaningless.

        Positions count from the end of the segment, so the most recent item always has the same one, however much padding is
        on the left and whatever else is in the row.

        Args:
          items: item indices, -1 at padding, L <= max_length; without `segments`, left-padded histories.
          segments: as in `windows.TrainingRows`.
          deterministic: False applies dropout, with the random stream "dropout".

        Raises:
          ValueError: the rows are longer than the position table.
        """
        x, mask = self._embed(items, segments_of(items, segments), deterministic)
        for block in self.blocks:
            x = block(x, mask, deterministic=deterministic)
        states: Array = self.final_norm(x)
        return states

    def last(self, items: Int[Array, "B L"]) -> Float[Array, "B D"]:
        """The state after the last item, as in a full call, but without the last block's work for the other positions."""
        x, mask = self._embed(items, segments_of(items, None), True)
        for block in self.blocks[:-1]:
            x = block(x, mask, deterministic=True)
        x = self.blocks[-1](x, mask, deterministic=True, only_last=True)  # [B, 1, D]
        state: Array = self.final_norm(x)[:, -1]
        return state

    def _embed(self, items: Array, segments: Array, deterministic: bool) -> tuple[Array, Array]:
        """The first block's input [B, L, D], and the attention mask [B, 1, L, L]."""
        length = items.shape[1]
        if length > self.config.max_length:
            raise ValueError(
                f"a history of {length} items needs more positions than the {self.config.max_length} of the network"
            )
        embedded = look_up(self.items(), items) * self.config.width**0.5  # [B, L, D]
        embedded += self.positions(steps_to_end(segments))
        mask = _attention_mask(segments, items >= 0)
        return self.dropout(embedded, deterministic=deterministic), mask

    def table(self) -> Float[Array, "I D"]:
        """One output vector per item, tied to the input."""
        return self.items()


def _attention_mask(segments: Int[Array, "B L"], known: Bool[Array, "B L"]) -> Array:
    """Bool [B, 1, L, L]: earlier items of the same segment, never padding or an unknown item.

    Every query may attend to itself: otherwise a padding query would spread over all keys, and an empty history would
    score differently with more padding.
    """
    length = segments.shape[1]
    together = (segments[:, :, None] == segments[:, None, :]) & known[:, None, :]  # [B, L, L]
    causal = jnp.tril(jnp.ones((length, length), dtype=bool))  # [L, L]
    return ((causal & together) | jnp.eye(length, dtype=bool))[:, None]  # [B, 1, L, L]
