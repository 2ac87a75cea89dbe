"""The item table of a network: vectors of its own, or vectors made from the items' texts.

Text vectors are data, not parameters. They have a Flax collection of their own, `text`, at `text/items/vectors`, and the
caller passes them along with the parameters:

    module.apply({"params": params, "text": {"items": {"vectors": vectors}}}, ...)

So they have no gradient and no optimizer state, and they are an argument of the compiled step, not a constant in it.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from delrec_jax.teachers.network import ITEM_INIT, ITEM_STD

WAYS = ("initialise", "concatenate", "adapter", "halves")
"""How text vectors enter a table. `initialise` is only a start (`network.initialised`): from then on it works like `own`."""

TEXT = "text"
"""The Flax collection of the text vectors."""

GELU_SQUARE = 0.425
"""The mean square of gelu(z) for z ~ N(0, 1): a second layer reads what has this variance."""


class ItemTable(nn.Module):
    """One vector per item.

    Text vectors are expected to have variance 1 over all their numbers (`text_vectors.unit_variance`). Every mode but `halves`,
    which takes them as they are, then starts with a table of the same scale as a plain one, however many columns they have.

    Attributes:
      num_items: I, number of items.
      width: D, number of columns.
      way: the mode. `own` or `initialise`: a parameter [I, D]. `concatenate`: that parameter and the text vectors [I, E]
        next to each other, projected back to D without a bias; the projection starts as the identity for the parameter
        and with small numbers for the text. `adapter`: two dense layers (2 D, gelu, D) over the text vectors and no
        parameter per item, so that an item without any interaction has a vector too. `halves` (as in AlphaFuse): the
        first E columns are the text vectors, which stay as they are, and the other D - E are a parameter.
    """

    num_items: int
    width: int
    way: str = "own"

    def setup(self) -> None:
        """Makes the table here and not in `__call__`, because input and output both ask for it and one is enough."""
        if self.way in ("own", "initialise"):
            self.rows = self._embedding()
        elif self.way == "concatenate":
            self.projection = nn.Dense(self.width, use_bias=False, kernel_init=_beside_identity)
            both = jnp.concatenate([self._embedding(), self._text()], axis=1)  # [I, D + E]
            self.rows = self.projection(both)  # [I, D]
        elif self.way == "adapter":
            self.wi = nn.Dense(2 * self.width)
            self.wo = nn.Dense(self.width, kernel_init=_scaled(ITEM_STD**2 / GELU_SQUARE))
            self.rows = self.wo(nn.gelu(self.wi(self._text())))  # [I, E] -> [I, 2 D] -> [I, D]
        elif self.way == "halves":
            text = self._text()
            own = self._embedding(self.width - text.shape[1])
            self.rows = jnp.concatenate([text, own], axis=1)  # [I, D]
        else:
            raise ValueError(f"item table with way={self.way!r}: use own, {', '.join(WAYS)}")

    def __call__(self) -> Float[Array, "I D"]:
        """The full table.

        Raises:
          ValueError: the mode is unknown, or it needs text vectors and has none, those of another number of items, or
            (`halves`) so wide ones that no column is left.
        """
        return self.rows

    def _embedding(self, width: int | None = None) -> Float[Array, "I W"]:
        columns = self.width if width is None else width
        if columns < 1:
            raise ValueError(
                f"an item table of {self.width} columns has none of its own left beside the text vectors"
            )
        return self.param("embedding", ITEM_INIT, (self.num_items, columns))

    def _text(self) -> Float[Array, "I E"]:
        vectors: Array | None = self.get_variable(TEXT, "vectors")
        if vectors is None:
            raise ValueError(
                f"an item table with way={self.way!r} reads text vectors and was given none: pass text, or the variables "
                "{'text': {'items': {'vectors': ...}}}"
            )
        if vectors.ndim != 2 or vectors.shape[0] != self.num_items:
            raise ValueError(f"text vectors of shape {vectors.shape} for {self.num_items} items")
        return jax.lax.stop_gradient(vectors)


def _scaled(variance: float) -> nn.initializers.Initializer:
    """Initializer of kernels that turn inputs of variance 1 into outputs of this variance."""
    return nn.initializers.variance_scaling(variance, "fan_in", "normal")


def _beside_identity(key: Array, shape: tuple[int, int], dtype: object = jnp.float32) -> Array:
    """A kernel [D + E, D]: the identity, and below it weights that bring the text to the scale of an item vector."""
    rows, width = shape
    text = _scaled(ITEM_STD**2)(key, (rows - width, width), dtype)
    return jnp.concatenate([jnp.eye(width, dtype=text.dtype), text])
