"""The names of the axes of a teacher's parameters; `training.sharding` maps them to devices."""

ITEM_TABLE = ("items", "embedding")


def axes_of(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """The table of items is split by its rows (`items`); a teacher's other parameters are a few hundred kilobytes.

    Args:
      path: names of the leaf's keys.
      shape: its shape.
    """
    rows: str | None = "items" if path[-2:] == ITEM_TABLE else None
    return (rows, *[None] * (len(shape) - 1)) if shape else ()
