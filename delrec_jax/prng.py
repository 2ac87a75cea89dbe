"""Named random streams: fold in the name, then the counters.

Adding a stream never shifts another, and a stream at a given counter is the same
whether or not the run was interrupted before it.
"""

import hashlib

import jax
import numpy as np

BITS = ("threefry", "rbg")
"""How a key can draw its numbers; see `drawing`."""


def _name_to_int(name: str) -> int:
    """Returns the first 32 bits of the name's SHA-256, which are the same in all processes and versions."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def key(seed: int, name: str, *counters: int) -> jax.Array:
    """Returns a JAX key for the stream `name` of `seed`, at the given counters."""
    result = jax.random.fold_in(jax.random.key(seed), _name_to_int(name))
    for counter in counters:
        result = jax.random.fold_in(result, counter)
    return result


def drawing(key: jax.Array, bits: str) -> jax.Array:
    """Returns a key of the same stream that draws its numbers by one of `BITS`.

    Args:
      key: a key of this module.
      bits: `threefry` returns the key itself; `rbg` makes one whose numbers the hardware's generator draws.
    """
    if bits == "threefry":
        return key
    drawn: jax.Array = jax.random.wrap_key_data(jax.random.bits(key, (4,), "uint32"), impl=bits)
    return drawn


def generator(seed: int, name: str, *counters: int) -> np.random.Generator:
    """Returns a NumPy generator for the stream `name` of `seed`, at the given counters."""
    # The count distinguishes (), (0,) and (0, 0): NumPy pads its seeds with zeros.
    return np.random.default_rng([seed, _name_to_int(name), len(counters), *counters])
