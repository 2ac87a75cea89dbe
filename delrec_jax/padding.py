"""The values that pad rows to one length or end a text: code that writes and code that reads them must use the same ones."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

PAD_TOKEN = 0
"""Pads texts on the right: `<pad>`, which is also the first input of decoders."""

END_TOKEN = 1
"""Ends texts: `</s>`."""

PAD_ITEM = -1
"""Pads histories on the left, and stands for unknown items; item indices are 0..I-1."""

_SHORTEST = 8


def few_lengths(longest: int) -> int:
    """Returns the smallest of 8, 16, 32, ... that holds `longest` items: only a few lengths, as each is compiled once."""
    length = _SHORTEST
    while length < longest:
        length *= 2
    return length


def left_padded(histories: Sequence[np.ndarray], length: int) -> Int[np.ndarray, "N L"]:
    """Returns the latest `length` items of each history (L, at least 1), int32, left-padded with -1."""
    rows = np.full((len(histories), length), PAD_ITEM, np.int32)
    for row, history in zip(rows, histories, strict=True):
        row[max(0, length - len(history)) :] = history[-length:]
    return rows
