"""Draws of a resampling in blocks, so that not all of them are in memory at once."""

from collections.abc import Iterator


def blocks(draws: int, width: int, elements: int) -> Iterator[slice]:
    """Yields which draws are made together.

    Args:
      draws: their number.
      width: numbers that each draw holds.
      elements: numbers that are held at once, at most, if one draw has no more.
    """
    size = max(1, elements // width)
    for start in range(0, draws, size):
        yield slice(start, min(start + size, draws))
