"""The split as a file: written once by `delrec prepare` and read by every other stage.

Only what the split adds to the corpus is stored: how much of each user's sequence is for training, and the users and target
positions of each part. The sequences stay in the corpus; their hash in the file identifies the ones that it belongs to.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from delrec_jax.data import split_kinds, stored_arrays
from delrec_jax.data.interactions import Interactions
from delrec_jax.data.split_kinds import SplitConfig
from delrec_jax.data.splits import PARTS, Split, Targets
from delrec_jax.errors import UserError

_TRAINED = "train_lengths"
_HEADER = ("kind", "config", "sequences")


def save_split(split: Split, path: Path, *, config: SplitConfig) -> str:
    """Writes a split with its kind, the config (including the seed) that made it, and the hash of the sequences.

    Returns:
      SHA-256 (hex) of all of it: two stages with the same hash were trained and tested on the same split.

    Raises:
      ValueError: the kind of the config is not that of the split.
    """
    if config.kind != split.kind:
        raise ValueError(f"a {split.kind} split was not made by a config of {config.kind}")
    header = {
        "kind": split.kind,
        "config": dataclasses.asdict(config),
        "sequences": sequences_hash(split.interactions),
    }
    arrays = {_TRAINED: split.train.lengths}
    for part, asked in split.parts.items():
        arrays |= {f"{part}_users": asked.users, f"{part}_places": asked.places}
    content = stored_arrays.content_hash(header, arrays)
    stored_arrays.save_arrays(path, header, arrays, stated_hash=content)
    return content


def load_split(path: Path, interactions: Interactions) -> Split:
    """Reads the split of these sequences.

    Args:
      path: A file written by `save_split`.
      interactions: The complete sequences of the same corpus.

    Returns:
      What `make_split` returned when the file was written.

    Raises:
      UserError: the file is missing, unreadable or altered, or belongs to other sequences.
    """
    names = [_TRAINED, *(f"{part}_{what}" for part in PARTS for what in ("users", "places"))]
    header, arrays, _ = stored_arrays.load_arrays(path, "split file", header=_HEADER, arrays=names)
    found = sequences_hash(interactions)
    if header["sequences"] != found:
        raise UserError(
            f"{path}: the split was made from sequences with hash {header['sequences'][:12]}, but the corpus has "
            f"{found[:12]}; {stored_arrays.REMEDY}"
        )
    parts = {part: Targets(arrays[f"{part}_users"], arrays[f"{part}_places"]) for part in PARTS}
    return split_kinds.split_of_lengths(header["kind"], interactions, arrays[_TRAINED], parts)


def sequences_hash(interactions: Interactions) -> str:
    """Returns the SHA-256 (hex) of all users' ids, items and times."""
    digest = hashlib.sha256(json.dumps(interactions.user_ids).encode())
    for array in (interactions.offsets, interactions.items, interactions.times):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
