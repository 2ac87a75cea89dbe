"""Names the axes of every array that the language model computes with.

`training.sharding` maps names to devices. A name says what an axis runs over, not where it goes:

vocab   rows of the token table and columns of the head      items  rows of what is trained for each item
users   rows of scores over the catalogue                    catalogue  rows of the item vectors, columns of scores
embed   the model's width, in kernels                        layers the leading axis of stacked layers
heads   heads times their width                              mlp    the hidden width of a feed-forward network
"""

from collections.abc import Callable, Mapping

from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array

Axes = tuple[str | None, ...]

_READOUT = "projection"  # P2Rec's readout, from the model's width to a few categories
# Never split: a soft prompt, its tasks' log-variances, a norm, a bias, the answers of an exam, a unit of loss and a
# verbalizer's scalars and map are not worth a message between devices.
_WHOLE = (
    *("prompt", "shared", "down", "up", "log_variance", "log_scale", "recent_weight", "map"),
    *("weight", "bias", "tokens", "weights", "unit", "slot_vectors"),
)
READOUT_BEFORE = "readout before"
"""What the parameters of a verbalizer are called in a tree that stage 2 began with; those that train are the `readout`."""

_READOUTS = ("readout", READOUT_BEFORE)

_BY_ITEM = ("item_residual", "item_bias")


def named_axes(
    kernels: Mapping[str, Axes], tables: Mapping[str, Axes]
) -> Callable[[tuple[str, ...], tuple[int, ...]], Axes]:
    """Returns the function that names the axes of a model's arrays, and of all arrays trained or stored with the model.

    Args:
      kernels: names of the two axes (in, out) of each projection, by the projection's name; they hold for its kernel and
        the scale of that, and for the A, E and B of its adapter.
      tables: names of the two axes of each table of embeddings, by the table's name.

    Returns:
      (path, shape) -> the names of a leaf's axes, None for those that are never split. The path consists of the leaf's keys,
      such as ("encoder", "block_0", "SelfAttention", "q", "kernel"); only the last two matter (and whether it is a readout's),
      so trees that contain the parameters get the same names. Stacked layers add a leading axis to the shape. The function
      raises a ValueError for an array that it has no names for.
    """

    def axes_of(path: tuple[str, ...], shape: tuple[int, ...]) -> Axes:
        owner, name = path[-2] if len(path) > 1 else "", path[-1]
        if name in _WHOLE or (name == "scale" and owner not in kernels):  # a norm's
            return (None,) * len(shape)
        if name == "vectors":
            return ("catalogue", None)
        if name in _BY_ITEM:
            return ("items", None)[: len(shape)]
        if any(part in _READOUTS for part in path[:-1]):  # parameters of somebody's own verbalizer
            return (None,) * len(shape)
        if name == "embedding" and owner in tables:
            return tables[owner]
        if owner == _READOUT and name == "kernel":
            return ("embed", None)
        if owner in kernels and name in ("kernel", "scale", "A", "E", "B"):
            inner, outer = kernels[owner]
            axes: Axes = {
                "kernel": (inner, outer),
                "scale": (outer,),
                "A": (inner, None),
                "E": (None,),
                "B": (None, outer),
            }[name]
            return ("layers",) * (len(shape) - len(axes)) + axes
        raise ValueError(
            f"no axes are named for {'/'.join(path)} {shape}: add them where the model names its own"
        )

    return axes_of


def constrain(x: Array, *axes: str | None) -> Array:
    """Tells the compiler the axes of an activation; does nothing if no mesh is active.

    Without it the compiler may follow the weights' layout and gather the batch on every device.
    """
    constrained: Array = with_logical_constraint(x, axes)
    return constrained
