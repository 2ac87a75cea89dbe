"""What the sections share: a record that is saved after every measurement, timing, and random arrays on the device."""

import json
import math
import os
import re
import runpy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from delrec_jax.config import from_config

ROOT = Path(__file__).parents[2]


class Record:
    """Measurements of one section by name, written as JSON after each measurement."""

    def __init__(self, path: Path, seconds: float, only: str = ""):
        """Opens the record of a section.

        Args:
          path: the file.
          seconds: how long the section may take from now on.
          only: a regular expression; measurements whose name does not contain a match are left out.
        """
        self._path, self._end, self._only = path, time.monotonic() + seconds, only
        self.found: dict[str, Any] = {}

    @property
    def left(self) -> float:
        """Seconds until the section should have ended."""
        return self._end - time.monotonic()

    def wants(self, name: str) -> bool:
        """Whether a measurement of this name is wanted."""
        return re.search(self._only, name) is not None

    def measure(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Keeps what the function returns, or its error; nothing starts after the section's time is over."""
        if not self.wants(name):
            return None
        if self.left <= 0:
            return self.keep(name, {"skipped": "no time left"})
        try:
            return self.keep(name, function(*arguments))
        except Exception as error:  # a failure is a result
            return self.keep(name, {"error": brief(error)})

    def keep(self, name: str, value: Any) -> Any:
        """Keeps a value and writes the file, completely or not at all."""
        self.found[name] = value
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self.found, indent=1) + "\n")
        partial.rename(self._path)
        return value


def brief(error: BaseException, most: int = 700) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:most]


def milliseconds(
    run: Callable[[], Any], *, calls: int = 10, rounds: int = 5, warmup: int = 2
) -> float:
    """The median over rounds of a call's mean time, in ms; waits for the device once per round."""
    for _ in range(warmup):
        jax.block_until_ready(run())
    means = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            last = run()
        jax.block_until_ready(last)
        means.append((time.perf_counter() - start) / calls * 1e3)
    return statistics.median(means)


def environment() -> dict[str, str]:
    """Environment variables for a process that imports the package of this checkout."""
    places = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}


def experiment_of(config: str, change: Callable[[Any], None] = lambda config: None) -> Any:
    """The experiment of `configs/CONFIG`, after `change`."""
    settings = runpy.run_path(str(ROOT / "configs" / config))["get_config"]()
    change(settings)
    return from_config(settings)


def random_weights(shapes: Any, *, std: float = 0.02) -> Any:
    """Weights of these shapes, made on the device by one program: uniform with this deviation, norms 1, integers 0."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)

    def make() -> list[jax.Array]:
        made = []
        for seed, (path, leaf) in enumerate(leaves):
            if leaf.dtype == bool or getattr(path[-1], "key", "") == "weight":
                made.append(jnp.ones(leaf.shape, leaf.dtype))
            elif jnp.issubdtype(leaf.dtype, jnp.floating):
                scale = std * math.sqrt(3)
                made.append((_uniform(leaf.shape, seed) * scale).astype(leaf.dtype))
            else:
                made.append(jnp.zeros(leaf.shape, leaf.dtype))
        return made

    return jax.tree.unflatten(structure, jax.jit(make)())


def zeros(shapes: Any) -> Any:
    """Arrays of these shapes, as an optimizer's state starts: 0, masks True."""

    def make(leaf: Any) -> jax.Array:
        return (jnp.ones if leaf.dtype == bool else jnp.zeros)(leaf.shape, leaf.dtype)

    return jax.jit(lambda: jax.tree.map(make, shapes))()


def _uniform(shape: tuple[int, ...], seed: int) -> jax.Array:
    """Numbers between -1 and 1 from a hash of their index: cheap to compile for any shape, unlike JAX's own draws."""
    x = jax.lax.iota(jnp.uint32, math.prod(shape)) + jnp.uint32((seed + 1) * 0x9E3779B1 % 2**32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    x = x ^ (x >> 16)
    return (x.astype(jnp.float32) / 2.0**31 - 1).reshape(shape)
