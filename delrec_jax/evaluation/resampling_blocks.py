"""Draws of a resampling in blocks, so that not all of them are in memory at once."""

from collections.abc import Iterator

_AT_ONCE = 4_000_000  # numbers: 32 MiB of draws, 32 MiB of counts


def blocks(draws: int, width: int) -> Iterator[slice]:
    """Yields which draws are made together.

    Args:
      draws: their number.
      width: numbers that each draw holds.
    """
    size = max(1, _AT_ONCE // width)
    for start in range(0, draws, size):
        yield slice(start, min(start + size, draws))
