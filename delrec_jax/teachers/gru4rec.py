"""GRU4Rec: a recurrent network over the history.

Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks" (ICLR 2016), trained like SASRec: a label
at every position and (by default) the softmax over the whole catalogue, the item table tied to the output.
"""

from dataclasses import dataclass

import jax
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

    title = "GRU4Rec"

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
        of_inputs, kernel, bias = _Cell(self.hidden, name="cell")(x)

        def step(state: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
            """One position: resets the states [B, H] where a segment starts, then applies the gates."""
            of_input, start = inputs  # [B, 3 H], [B]
            state = jnp.where(start[:, None], 0.0, state)
            reset, update, new = jnp.split(of_input, 3, axis=-1)
            reset_by, update_by, new_by = jnp.split(state @ kernel, 3, axis=-1)
            reset, update = nn.sigmoid(reset + reset_by), nn.sigmoid(update + update_by)
            state = (1.0 - update) * jnp.tanh(new + reset * (new_by + bias)) + update * state
            return state, state

        first = jnp.zeros((x.shape[0], self.hidden), x.dtype)
        by_position = jnp.moveaxis(of_inputs, 1, 0), jnp.moveaxis(starts, 1, 0)
        return jnp.moveaxis(jax.lax.scan(step, first, by_position)[1], 0, 1)


class _Cell(nn.Module):
    """The parameters of a GRU cell under the names of `nn.GRUCell`, and their products with the inputs of all positions.

    Gates are in the order reset, update, new state. What depends on the state is left to the scan: one product per position.
    """

    hidden: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"]
    ) -> tuple[Float[Array, "B L 3H"], Float[Array, "H 3H"], Float[Array, " H"]]:
        """The inputs' products with their biases, the recurrent kernel, and the recurrent bias of the new state."""
        by_input = [_Affine(x.shape[-1], self.hidden, name=name)() for name in ("ir", "iz", "in")]
        kernel, bias = (jnp.concatenate(parts, axis=-1) for parts in zip(*by_input, strict=True))
        orthogonal = nn.initializers.orthogonal()
        by_state = [
            _Affine(self.hidden, self.hidden, orthogonal, name == "hn", name=name)()
            for name in ("hr", "hz", "hn")
        ]
        return x @ kernel + bias, jnp.concatenate([k for k, _ in by_state], -1), by_state[-1][1]


class _Affine(nn.Module):
    """The kernel [inputs, outputs] and bias [outputs] (0 without one) of a dense layer."""

    inputs: int
    outputs: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        kernel = self.param("kernel", self.kernel_init, (self.inputs, self.outputs))
        if not self.use_bias:
            return kernel, jnp.zeros(self.outputs, kernel.dtype)
        return kernel, self.param("bias", nn.initializers.zeros, (self.outputs,))
