"""Texts in batches for evaluation: of one length where all are short, and otherwise by length, each batch padded for itself."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from delrec_jax.data.pipeline import bucket_length, collate

ALIKE = 256
"""Texts of up to so many tokens are padded alike: shorter shapes would save little, and each would be compiled."""


class Padding(NamedTuple):
    """How texts are padded.

    Attributes:
      least: the tokens that each batch has room for at least.
      order: all texts, short ones first; None if all are padded alike, so that no order is better.
    """

    least: int
    order: Int[np.ndarray, " N"] | None


def padding_of(
    lengths: Int[np.ndarray, " N"], buckets: Sequence[int], alike: int = ALIKE
) -> Padding:
    """Returns how texts of these lengths are padded.

    Args:
      lengths: their tokens.
      buckets: the lengths that batches can have, ascending.
      alike: texts of up to so many tokens are padded alike.
    """
    least = int(min(lengths.max(initial=0), alike))
    different = np.unique(np.maximum(lengths, least)).tolist()
    several = len({bucket_length(length, buckets) for length in different}) > 1
    return Padding(least, np.argsort(lengths, kind="stable") if several else None)


def padded_batches(
    examples: Sequence[Any], *, batch_size: int, buckets: Sequence[int], alike: int = ALIKE
) -> Iterator[tuple[Any, Int[np.ndarray, " B"]]]:
    """Makes batches of all examples, each once; the last batch repeats its last one.

    Args:
      examples: with `ids`.
      batch_size: examples per batch.
      buckets, alike: as in `padding_of`; with `alike=0` each batch is padded for itself, which pays where all are read often.

    Yields:
      A batch, and the places of its examples among all of them, without those that are repeated.
    """
    lengths = np.array([len(one.ids) for one in examples], np.int64)
    least, order = padding_of(lengths, buckets, alike)
    order = np.arange(len(examples)) if order is None else order
    wide = [bucket for bucket in buckets if bucket >= bucket_length(least, buckets)]
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        filled = np.pad(places, (0, batch_size - len(places)), mode="edge")
        yield collate([examples[place] for place in filled], wide), places
