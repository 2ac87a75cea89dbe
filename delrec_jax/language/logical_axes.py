"""The names of the axes of every array that the language model computes with.

`training.sharding` maps names to devices. A name says what an axis runs over, not where it goes:

vocab   rows of the token table and columns of the head      items  rows of the catalogue's output vectors
embed   the model's width, in kernels                        layers the leading axis of stacked layers
heads   heads times their width                              mlp    the hidden width of a feed-forward network
"""

from flax import linen as nn
from jaxtyping import Array

Axes = tuple[str | None, ...]

_KERNELS: dict[str, Axes] = {
    **dict.fromkeys(("q", "k", "v"), ("embed", "heads")),
    "o": ("heads", "embed"),
    **dict.fromkeys(("wi", "wi_0", "wi_1"), ("embed", "mlp")),
    "wo": ("mlp", "embed"),
    "lm_head": (None, "vocab"),
}
_TABLES: dict[str, Axes] = {
    "shared": ("vocab", None),
    "relative_attention_bias": (None, "heads"),
}
_READOUT = "projection"  # of P2Rec, from the width to a few categories
# A soft prompt, its tasks' log-variances, a norm, the answers of an exam, a unit of loss: too small to be worth a message
# between devices.
_WHOLE = ("prompt", "log_variance", "weight", "tokens", "weights", "unit")


def axes_of(path: tuple[str, ...], shape: tuple[int, ...]) -> Axes:
    """Names of a leaf's axes, None for those that are never split.

    Args:
      path: names of its keys, such as ("encoder", "block_0", "SelfAttention", "q", "kernel"); whatever stands before the
        last two does not matter, so trees that hold the parameters have the same names.
      shape: its shape; stacked layers add a leading axis.

    Raises:
      ValueError: an array that no name is known for.
    """
    owner, name = path[-2] if len(path) > 1 else "", path[-1]
    if name in _WHOLE:
        return (None,) * len(shape)
    if name == "vectors":
        return ("items", None)
    if name == "embedding" and owner in _TABLES:
        return _TABLES[owner]
    if owner == _READOUT and name in ("kernel", "bias"):
        return ("embed", None) if name == "kernel" else (None,)
    if owner in _KERNELS and name in ("kernel", "A", "E", "B"):
        inner, outer = _KERNELS[owner]
        axes: Axes = {
            "kernel": (inner, outer),
            "A": (inner, None),
            "E": (None,),
            "B": (None, outer),
        }[name]
        return ("layers",) * (len(shape) - len(axes)) + axes
    raise ValueError(f"no axes are named for {'/'.join(path)} {shape}: add them to {__name__}")


def constrain(x: Array, *axes: str | None) -> Array:
    """States an activation's axes to the compiler; nothing where no mesh is active.

    Without it the compiler may follow the weights' layout and gather the batch on every device.
    """
    return nn.with_logical_constraint(x, axes)
