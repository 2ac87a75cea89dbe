"""The card, the versions, and two measured ceilings: matrix products and copies."""

import shutil
import subprocess
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
from measuring import Record, milliseconds

_LIBRARIES = (
    *("jax", "jaxlib", "jax-cuda13-plugin", "nvidia-cudnn-cu13", "flax", "optax", "numpy"),
    *("orbax-checkpoint", "transformers", "grain", "tensorflow-datasets", "polars"),
)


def run(record: Record, tiny: bool) -> None:
    """Records the hardware, the versions, and the ceilings."""
    record.measure("machine", describe)
    size, rows = (256, 2**16) if tiny else (8192, 2**30)
    for dtype, precision in (
        *(("bfloat16", "default"), ("float32", "default"), ("float32", "highest")),
    ):
        name = f"product {size}^3, {dtype}, {precision}: TFLOP/s"
        record.measure(name, product_rate, size, jnp.dtype(dtype), precision)
    record.measure(f"copy of {rows * 2 / 2**30:.3g} GiB, read + written: TB/s", copy_rate, rows)


def describe() -> dict[str, Any]:
    """Versions, card, driver, and the memory that JAX may use."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    found: dict[str, Any] = {
        "card": device.device_kind,
        "platform": device.platform,
        "versions": {},
    }
    for name in _LIBRARIES:
        try:
            found["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["memory limit, GiB"] = round(stats.get("bytes_limit", 0) / 2**30, 1)
    if shutil.which("nvidia-smi"):
        asked = [
            "nvidia-smi",
            "--query-gpu=name,driver_version,memory.total",
            "--format=csv,noheader",
        ]
        found["nvidia-smi"] = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return found


def product_rate(size: int, dtype: jnp.dtype, precision: str) -> float:
    """TFLOP/s of a square product of random matrices."""
    a, b = (jax.random.normal(jax.random.key(seed), (size, size), dtype) for seed in (0, 1))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    return 2 * size**3 / milliseconds(lambda: product(a, b), calls=8) / 1e9


def copy_rate(count: int) -> float:
    """TB/s of reading `count` 16-bit numbers and writing as many."""
    x = jnp.ones(count, jnp.bfloat16)
    copy = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / milliseconds(lambda: copy(x), calls=8) / 1e9
