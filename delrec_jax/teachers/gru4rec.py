"""GRU4Rec: a recurrent network over the history.

Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks" (ICLR 2016), trained like SASRec: a label
at every position and (by default) the softmax over the whole catalogue, the item table tied to the output.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.dropout import Dropout
from delrec_jax.teachers.item_table import ItemTable
from delrec_jax.teachers.network import check_shape, look_up, segments_of


@dataclass(frozen=True)
class GRU4RecConfig:
    """The shape of the model.

    Attributes:
        width: D, size of the item vectors.
        hidden: H, size of the recurrent state.
        layers: number of GRU layers.
        max_length: L, number of most recent items that are read.
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
    """The network, with the interface that `network` describes."""

    config: GRU4RecConfig
    num_items: int
    way: str = "own"  # mode of the item table, see `ItemTable`

    def setup(self) -> None:
        """Makes the layers; the item table serves both as input and as output."""
        config = self.config
        self.items = ItemTable(self.num_items, config.width, self.way)
        self.dropout = Dropout(config.dropout)
        self.layers = [_ResettingGRU(config.hidden) for _ in range(config.layers)]
        self.out = nn.Dense(config.width)

    def __call__(
        self,
        items: Int[Array, "B L"],
        segments: Int[Array, "B L"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B L D"]:
        """The state after each item; states at padding are meaningless. Arguments as in `SASRec`."""
        segments = segments_of(items, segments)
        # The state is reset at every padding position, so that the amount of padding has no effect.
        starts = (segments != jnp.pad(segments[:, :-1], ((0, 0), (1, 0)))) | (segments == 0)
        x = look_up(self.items(), items)  # [B, L, D]
        for layer in self.layers:
            x = layer(self.dropout(x, deterministic=deterministic), starts)  # [B, L, H]
        return self.out(x)  # [B, L, D]

    def last(self, items: Int[Array, "B L"]) -> Float[Array, "B D"]:
        """The state after the last item."""
        return self(items)[:, -1]

    def table(self) -> Float[Array, "I D"]:
        """One output vector per item, tied to the input."""
        return self.items()


class _ResettingGRU(nn.Module):
    """A GRU over positions [B, L, D] -> [B, L, H] that resets its state where a segment starts."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], starts: Bool[Array, "B L"]) -> Array:
        def step(
            cell: nn.GRUCell, state: Array, inputs: tuple[Array, Array]
        ) -> tuple[Array, Array]:
            """One position: resets the states [B, H] where a segment starts, then applies the cell."""
            x, start = inputs
            stepped: tuple[Array, Array] = cell(jnp.where(start[:, None], 0.0, state), x)
            return stepped

        scan = nn.scan(
            step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )
        first = jnp.zeros((x.shape[0], self.hidden), x.dtype)
        return scan(nn.GRUCell(self.hidden, name="cell"), first, (x, starts))[1]
