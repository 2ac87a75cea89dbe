"""The names of the axes of a teacher's parameters and text vectors; `training.sharding` maps them to devices."""

BY_ITEM = (("items", "embedding"), ("items", "vectors"), ("text",))
"""How the paths end of what has a row an item: the item table, and text vectors as variables or as an argument."""


def axes_of(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """What has a row an item is split by its rows (`items`); a teacher's other parameters are a few hundred kilobytes.

    Args:
      path: names of the leaf's keys.
      shape: its shape.
    """
    rows: str | None = "items" if any(path[-len(end) :] == end for end in BY_ITEM) else None
    return (rows, *[None] * (len(shape) - 1)) if shape else ()
