"""Caser: convolutions over the last few items, read as an image of width D.

Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding" (WSDM 2018). Two things
differ. There is no user embedding: a teacher must score users whom it never saw. And every place of a history is the end
of a window, so that one pass gives a label at every position, as for the other teachers, where the paper's program cuts a
row for each label.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.teachers.item_table import ItemTable
from delrec_jax.teachers.network import check_shape, look_up, segments_of


@dataclass(frozen=True)
class CaserConfig:
    """The shape of the model.

    Attributes:
        width: D, of the item vectors and of the states.
        window: the latest items that a convolution sees.
        heights: items under one horizontal filter, for each group of filters.
        horizontal: filters of each height.
        vertical: filters over the whole window, one weight an item.
        max_length: L, places of a training row; scores need the last `window` only.
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
    """The network, of the form of `network`."""

    config: CaserConfig
    num_items: int
    way: str = "own"  # of the item table

    def setup(self) -> None:
        """Names the parts; the item table serves as input and as output."""
        config = self.config
        self.items = ItemTable(self.num_items, config.width, self.way)
        self.filters = [nn.Dense(config.horizontal) for _ in config.heights]
        self.columns = nn.Dense(config.vertical)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Dense(config.width)

    def __call__(
        self,
        items: Int[Array, "B L"],
        segments: Int[Array, "B L"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B L D"]:
        """The state after each item; states at padding mean nothing. Arguments as of `SASRec`."""
        image = _windows(
            look_up(self.items(), items), segments_of(items, segments), self.config.window
        )
        found = [
            _horizontal(dense, image, height)
            for dense, height in zip(self.filters, self.config.heights, strict=True)
        ]
        across = self.columns(jnp.swapaxes(image, -1, -2))  # [B, L, D, vertical]
        found.append(across.reshape(*across.shape[:2], -1))
        features = self.dropout(jnp.concatenate(found, axis=-1), deterministic=deterministic)
        return nn.relu(self.out(features))

    def last(self, items: Int[Array, "B L"]) -> Float[Array, "B D"]:
        """The state after the last item, which the window alone decides."""
        return self(items[:, -self.config.window :])[:, -1]

    def table(self) -> Float[Array, "I D"]:
        """One vector an item: that of the input, tied."""
        return self.items()


def _windows(
    embedded: Float[Array, "B L D"], segments: Int[Array, "B L"], window: int
) -> Float[Array, "B L W D"]:
    """The latest `window` items at each place, oldest first; zeros before the segment begins."""
    length = segments.shape[1]
    columns = []
    for back in range(window - 1, -1, -1):
        shifted = jnp.pad(embedded, ((0, 0), (back, 0), (0, 0)))[:, :length]
        owner = jnp.pad(segments, ((0, 0), (back, 0)), constant_values=-1)[:, :length]
        columns.append(jnp.where((owner == segments)[..., None], shifted, 0.0))
    return jnp.stack(columns, axis=2)


def _horizontal(dense: nn.Dense, image: Float[Array, "B L W D"], height: int) -> Array:
    """A filter over `height` neighbours at every offset of the window, then the largest response [B, L, filters]."""
    offsets = image.shape[2] - height + 1
    neighbours = jnp.stack([image[:, :, o : o + height] for o in range(offsets)], axis=2)
    return nn.relu(dense(neighbours.reshape(*neighbours.shape[:3], -1))).max(axis=2)
