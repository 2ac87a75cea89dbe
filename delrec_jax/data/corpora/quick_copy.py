"""A copy of a prepared corpus as arrays: TFDS, which reads the records, takes longer to load than most corpora take to read.

The records remain what a corpus is stored as; a corpus without this copy, as earlier versions prepared it, is read from them.
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from delrec_jax.data.interactions import Catalogue, Corpus, Interactions
from delrec_jax.data.stored_arrays import content_hash, load_arrays, save_arrays

FILE = "corpus.npz"

_HEADER = ("name", "dropped", "ordered_only", "parts")
_TEXTS = ("ids", "titles", "attributes", "user_ids")
_NUMBERS = ("offsets", "items", "times")


def save_copy(corpus: Corpus, file: Path) -> None:
    """Writes a corpus, completely or not at all."""
    catalogue, interactions = corpus.catalogue, corpus.interactions
    header = {
        "name": corpus.name,
        "dropped": dict(corpus.dropped),
        "ordered_only": corpus.ordered_only,
        "parts": runs_of(corpus.parts),
    }
    texts = (catalogue.ids, catalogue.titles, dict(catalogue.attributes), interactions.user_ids)
    numbers = (interactions.offsets, interactions.items, interactions.times)
    arrays = dict(zip(_TEXTS, map(_as_bytes, texts), strict=True))
    arrays |= dict(zip(_NUMBERS, numbers, strict=True))
    save_arrays(file, header, arrays, stated_hash=content_hash(header, arrays))


def load_copy(file: Path) -> Corpus:
    """Reads a corpus that `save_copy` wrote.

    Raises:
      UserError: the file is missing, damaged or altered.
    """
    header, arrays, _ = load_arrays(
        file, "prepared corpus", header=_HEADER, arrays=(*_TEXTS, *_NUMBERS)
    )
    ids, titles, attributes, user_ids = (json.loads(arrays[name].tobytes()) for name in _TEXTS)
    return Corpus(
        name=header["name"],
        catalogue=Catalogue(
            tuple(ids),
            tuple(titles),
            {name: tuple(values) for name, values in attributes.items()},
        ),
        interactions=Interactions(tuple(user_ids), *(arrays[name] for name in _NUMBERS)),
        dropped=header["dropped"],
        ordered_only=header["ordered_only"],
        parts=parts_of(header["parts"]),
    )


def runs_of(parts: tuple[str, ...] | None) -> list[tuple[str, int]] | None:
    """Returns each part with how many users in a row have it."""
    return None if parts is None else [(part, len(list(run))) for part, run in groupby(parts)]


def parts_of(runs: Any) -> tuple[str, ...] | None:
    """Returns what `runs_of` was given."""
    return None if runs is None else tuple(part for part, count in runs for _ in range(count))


def _as_bytes(texts: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)
