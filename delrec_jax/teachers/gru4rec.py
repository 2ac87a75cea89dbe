"""GRU4Rec: a recurrent network over the history.

Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks" (ICLR 2016), trained as SASRec is: a label
at every position and (by default) the softmax over the whole catalogue, the item table tied to the output.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.teachers.item_table import ItemTable
from delrec_jax.teachers.network import check_shape, look_up, segments_of


@dataclass(frozen=True)
class GRU4RecConfig:
    """The shape of the model.

    Attributes:
        width: D, of the item vectors.
        hidden: of the recurrent state.
        layers: number of GRU layers.
        max_length: L, the most recent items that are read.
        dropout: rate on item vectors and between layers, in training.
    """

    width: int = 64
    hidden: int = 128
    layers: int = 1
    max_length: int = 50
    dropout: float = 0.3

    def __post_init__(self) -> None:
        check_shape("gru4rec", self, ("width", "hidden", "layers", "max_length"))


class GRU4Rec(nn.Module):
    """The network, of the form of `network`."""

    config: GRU4RecConfig
    num_items: int
    way: str = "own"  # of the item table

    def setup(self) -> None:
        """Names the parts; the item table serves as input and as output."""
        config = self.config
        self.items = ItemTable(self.num_items, config.width, self.way)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = [_ResettingGRU(config.hidden) for _ in range(config.layers)]
        self.out = nn.Dense(config.width)

    def __call__(
        self,
        items: Int[Array, "B L"],
        segments: Int[Array, "B L"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B L D"]:
        """The state after each item; states at padding mean nothing. Arguments as of `SASRec`."""
        segments = segments_of(items, segments)
        # Padding starts anew at each place, so that its number leaves no trace.
        starts = (segments != jnp.pad(segments[:, :-1], ((0, 0), (1, 0)))) | (segments == 0)
        x = look_up(self.items(), items)
        for layer in self.layers:
            x = layer(self.dropout(x, deterministic=deterministic), starts)
        return self.out(x)

    def last(self, items: Int[Array, "B L"]) -> Float[Array, "B D"]:
        """The state after the last item."""
        return self(items)[:, -1]

    def table(self) -> Float[Array, "I D"]:
        """One vector an item: that of the input, tied."""
        return self.items()


class _ResettingGRU(nn.Module):
    """A GRU over places whose state is forgotten where a segment starts."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], starts: Bool[Array, "B L"]) -> Array:
        def step(cell, state, inputs):
            x, start = inputs
            return cell(jnp.where(start[:, None], 0.0, state), x)

        scan = nn.scan(
            step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )
        first = jnp.zeros((x.shape[0], self.hidden), x.dtype)
        return scan(nn.GRUCell(self.hidden, name="cell"), first, (x, starts))[1]
