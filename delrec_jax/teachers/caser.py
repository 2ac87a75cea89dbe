"""Caser: convolutions over the last few items, read as an image of width D.

Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding" (WSDM 2018). Two things
differ. There is no user embedding: a teacher must score users that it has never seen. And every position of a history is the
end of a window, so that one pass covers a label at every position, as for the other teachers; the paper's program cuts one
row per label.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from delrec_jax.dropout import Dropout
from delrec_jax.errors import UserError
from delrec_jax.teachers.item_table import ItemTable
from delrec_jax.teachers.network import check_shape, look_up, segments_of


@dataclass(frozen=True)
class CaserConfig:
    """The shape of the model.

    Attributes:
      width: D, size of the item vectors and of the states.
      window: W, number of latest items that a convolution sees.
      heights: number of items under one horizontal filter, for each group of filters.
      horizontal: number of filters of each height.
      vertical: number of filters over the full window, with one weight per item.
      max_length: L, positions in a training row; scores need only the last `window`.
      dropout: rate on the filters' output, in training.
    """

    width: int = 100
    window: int = 5
    heights: tuple[int, ...] = (2, 3, 4)
    horizontal: int = 16
    vertical: int = 4
    max_length: int = 50
    dropout: float = 0.4

    def __post_init__(self) -> None:
        sizes = ("width", "window", "horizontal", "vertical", "max_length")
        check_shape("caser", self, sizes)
        if not self.heights or not 1 <= min(self.heights) <= max(self.heights) <= self.window:
            raise UserError(
                f"teacher.caser.heights: {self.heights} must be from 1 to teacher.caser.window={self.window}"
            )


class Caser(nn.Module):
    """The network, with the interface that `network` describes."""

    title = "Caser"

    config: CaserConfig
    num_items: int
    way: str = "own"  # mode of the item table, see `ItemTable`

    def setup(self) -> None:
        """Makes the layers; the item table serves both as input and as output."""
        config = self.config
        self.items = ItemTable(self.num_items, config.width, self.way)
        self.filters = [nn.Dense(config.horizontal) for _ in config.heights]
        self.columns = nn.Dense(config.vertical)
        self.dropout = Dropout(config.dropout)
        self.out = nn.Dense(config.width)

    def __call__(
        self,
        items: Int[Array, "B L"],
        segments: Int[Array, "B L"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B L D"]:
        """The state after each item; states at padding are meaningless. Arguments as in `SASRec`."""
        image = _windows(
            look_up(self.items(), items), segments_of(items, segments), self.config.window
        )  # [B, L, W, D]
        found = [
            _horizontal(dense, image, height)
            for dense, height in zip(self.filters, self.config.heights, strict=True)
        ]  # of each height: [B, L, horizontal]
        across = self.columns(jnp.swapaxes(image, -1, -2))  # [B, L, D, vertical]
        found.append(across.reshape(*across.shape[:2], -1))  # [B, L, D * vertical]
        features = self.dropout(jnp.concatenate(found, axis=-1), deterministic=deterministic)
        return nn.relu(self.out(features))  # [B, L, D]

    def last(self, items: Int[Array, "B L"]) -> Float[Array, "B D"]:
        """The state after the last item; it depends on the last window only."""
        return self(items[:, -self.config.window :])[:, -1]

    def table(self) -> Float[Array, "I D"]:
        """One output vector per item, tied to the input."""
        return self.items()


def _windows(
    embedded: Float[Array, "B L D"], segments: Int[Array, "B L"], window: int
) -> Float[Array, "B L W D"]:
    """The latest `window` items at each position, oldest first; zeros before the segment begins."""
    length = segments.shape[1]
    columns = []
    for back in range(window - 1, -1, -1):
        shifted = jnp.pad(embedded, ((0, 0), (back, 0), (0, 0)))[:, :length]
        owner = jnp.pad(segments, ((0, 0), (back, 0)), constant_values=-1)[:, :length]
        columns.append(jnp.where((owner == segments)[..., None], shifted, 0.0))
    return jnp.stack(columns, axis=2)  # [B, L, W, D]


def _horizontal(dense: nn.Dense, image: Float[Array, "B L W D"], height: int) -> Array:
    """Filters over `height` neighbors at every offset in the window; the largest response of each, [B, L, filters]."""
    offsets = image.shape[2] - height + 1
    neighbours = jnp.stack([image[:, :, o : o + height] for o in range(offsets)], axis=2)
    flat = neighbours.reshape(*neighbours.shape[:3], -1)  # [B, L, offsets, height * D]
    return nn.relu(dense(flat)).max(axis=2)
