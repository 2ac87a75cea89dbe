"""What all benchmarks share: a description of the machine, interleaved timing, the results file, the closing lines.

A script `benchmarks/NAME.py` runs our code and its peer in one process, writes `benchmarks/results/NAME.json` and ends by
printing lines such as `NAME CASE: ratio 0.54 (ours 1.79 s, peer 3.32 s)`. With `--quick` it writes `NAME.quick.json`, so that a
short trial never replaces a measured result.
"""

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "transformers", "torch", "peft")


def machine() -> dict[str, Any]:
    """Processor, memory, accelerator, versions, and the recent load (which tells whether something else was running)."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),  # fewer under taskset
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "devices": [device.device_kind for device in jax.devices()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name))},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def cached(place: Path) -> dict[str, str]:
    """The environment of a process that keeps all compiled programs in a folder."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(place),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def interleave(
    cases: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds that each case took in each round; the timing waits for JAX arrays that a case returns.

    All cases run once per round, so that a disturbance of the machine affects all of them; each round starts with another
    case, so that none always runs after the same neighbor. The warm-up rounds (compilation) are not kept.
    """
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            jax.block_until_ready(cases[name]())
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median over the rounds of each case."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def save(name: str, settings: Mapping[str, Any], results: Mapping[str, Any]) -> Path:
    """Writes `benchmarks/results/NAME.json`: date, machine, settings and results (which should hold all repeats)."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "settings": dict(settings),
        "results": dict(results),
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def ratio_line(
    name: str, case: str, *, ours: float, peer: float | None, unit: str, digits: int = 3
) -> str:
    """A line `NAME CASE: ratio 0.54 (ours 1.79 s, peer 3.32 s)`, ratio = ours / peer; without a peer, ours alone."""
    if peer is None:
        return f"{name} {case}: ours {ours:.{digits}g} {unit}, no peer"
    numbers = f"ours {ours:.{digits}g} {unit}, peer {peer:.{digits}g} {unit}"
    return f"{name} {case}: ratio {ours / peer:.{digits}g} ({numbers})"


def resident_gib(key: str) -> float:
    """GiB of this process: `VmRSS` now, `VmHWM` at its peak (getrusage would count the parent's memory too)."""
    line = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert line is not None
    return int(line[1]) / 2**20


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
