"""Named random streams: fold in the name, then the counters.

Adding a stream never shifts another, and a stream at a given counter is the same
whether or not the run was interrupted before it.
"""

import hashlib

import jax
import numpy as np


def _name_to_int(name: str) -> int:
    """Returns the first 32 bits of the name's SHA-256, which are the same in all processes and versions."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def key(seed: int, name: str, *counters: int) -> jax.Array:
    """Returns a JAX key for the stream `name` of `seed`, at the given counters."""
    result = jax.random.fold_in(jax.random.key(seed), _name_to_int(name))
    for counter in counters:
        result = jax.random.fold_in(result, counter)
    return result


def generator(seed: int, name: str, *counters: int) -> np.random.Generator:
    """Returns a NumPy generator for the stream `name` of `seed`, at the given counters."""
    # The count distinguishes (), (0,) and (0, 0): NumPy pads its seeds with zeros.
    return np.random.default_rng([seed, _name_to_int(name), len(counters), *counters])
