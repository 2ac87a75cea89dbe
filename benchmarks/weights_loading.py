"""Host memory that `weights.load` needs to put a model of N bytes onto 8 devices; the bound is N/4 + 1 GiB.

    python benchmarks/weights_loading.py            about 5 minutes, 4 GB of disk, 12 GB of memory
    python benchmarks/weights_loading.py --quick    under 2 minutes
    python benchmarks/weights_loading.py --size=xl --cases float32-scanned    12 GB of disk, 20 GB of memory

Random weights of a Flan-T5 shape are written as several safetensors files; a fresh process with 8 fake CPU devices loads
them, every leaf split over its largest axis that divides by 8.

What is counted: fake devices keep their arrays in the host's memory, so these are subtracted. At every moment, extra =
resident memory (anonymous, shared and mapped file pages alike) - resident memory before loading - bytes of the arrays
made so far. A leaf counts as made only once `jax.make_array_from_callback` has returned it; until then its pieces and
their copies on the devices are all extra. This process samples the other's /proc/PID/status every 2 ms, so that the
interpreter's lock cannot hide a peak. The kernel's own high-water mark (VmHWM), minus the memory before loading and minus
N, is reported as well, and the result is the larger of the two. Files are read from the page cache (they were just
written). The case `whole-files` is not a loader of ours: it reads all tensors and then places them, to show what this
measure says of a loader that does not stream.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import harness
import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from delrec_jax.language import t5_files
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_names import leaves

NAME = "weights_loading"
DEVICES = 8
GIB = 2**30
SHARD_BYTES = 10**9
SAMPLE_SECONDS = 0.002
# d_model, heads, d_ff, layers of Flan-T5; d_kv is 64 in all sizes.
SIZES = {
    "small": (512, 6, 1024, 8),
    "base": (768, 12, 2048, 12),
    "large": (1024, 16, 2816, 24),
    "xl": (2048, 32, 5120, 24),
    "xxl": (4096, 64, 10240, 24),
}
CONTROL = "whole-files"
# Type in the files, type in memory, whether layers are stacked.
CASES = {
    "float32": ("float32", "float32", False),
    "float32-scanned": ("float32", "float32", True),
    "bfloat16": ("bfloat16", "bfloat16", False),
    "float32-to-bfloat16-scanned": ("float32", "bfloat16", True),
    CONTROL: ("float32", "float32", False),
}


def config_of(size, case):
    width, heads, d_ff, layers = SIZES[size]
    _, held, scanned = CASES[case]
    return T5Config(
        d_model=width,
        num_heads=heads,
        d_ff=d_ff,
        num_layers=layers,
        num_decoder_layers=layers,
        param_dtype=held,
        scan_layers=scanned,
    )


def write_model(directory, config, dtype):
    """Writes random weights in files of about SHARD_BYTES, and the index that names them."""
    generator = np.random.default_rng(0)
    shards, size = [{}], 0
    for leaf in leaves(config):
        for name in leaf.names:
            value = generator.standard_normal(leaf.stored_shape, np.float32).astype(dtype)
            if size and size + value.nbytes > SHARD_BYTES:
                _write_shard(directory, shards)
                size = 0
            shards[-1][name] = value
            size += value.nbytes
    _write_shard(directory, shards)
    weight_map = {
        name: f"model-{i}.safetensors" for i, names in enumerate(shards[:-1]) for name in names
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _write_shard(directory, shards):
    """Writes the last shard, keeps only its names, and opens the next."""
    save_file(shards[-1], directory / f"model-{len(shards) - 1}.safetensors")
    shards[-1] = list(shards[-1])
    shards.append({})


def split_over_devices(config):
    """Path -> sharding: each leaf is split over its largest axis that divides by the number of devices."""
    mesh = Mesh(np.array(jax.devices()), ("fsdp",))

    def sharding(shape):
        axes = [axis for axis, size in enumerate(shape) if size % DEVICES == 0]
        split = max(axes, key=lambda axis: shape[axis], default=None)
        return NamedSharding(
            mesh, PartitionSpec(*["fsdp" if i == split else None for i in range(len(shape))])
        )

    return {leaf.path: sharding(leaf.shape) for leaf in leaves(config)}


def memory_of(pid):
    """Resident bytes by kind, and their high-water mark; empty for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = dict(line.split(":", 1) for line in text.splitlines())
    kinds = ("VmRSS", "VmHWM", "RssAnon", "RssFile", "RssShmem")
    return {kind: int(fields[kind].split()[0]) * 1024 for kind in kinds if kind in fields}


def read_whole_then_place(directory, config, shardings):
    """What `weights.load` must not do: reads whole files, then places the arrays, here in a flat tree."""
    arrays = {}
    for file in sorted(directory.glob("*.safetensors")):
        arrays |= load_file(file)
    return {
        leaf.path: jax.make_array_from_callback(
            leaf.shape, shardings[leaf.path], _turned(arrays[leaf.names[0]], leaf).__getitem__
        )
        for leaf in leaves(config)
    }


def _turned(array, leaf):
    return array.T if leaf.transposed else array


def load_in_this_process(directory, size, case):
    """The measured process: says when it is ready, loads when told to, reports what it made and when."""
    assert jax.device_count() == DEVICES
    config = config_of(size, case)
    shardings = split_over_devices(config)
    made = []
    make = jax.make_array_from_callback

    def watched(*args, **kwargs):
        array = make(*args, **kwargs)
        held = sum(shard.data.nbytes for shard in array.addressable_shards)
        made.append((time.monotonic(), held))
        return array

    jax.make_array_from_callback = watched
    jax.block_until_ready([jax.device_put(np.zeros(1), device) for device in jax.devices()])
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.monotonic()
    if case == CONTROL:
        params = read_whole_then_place(directory, config, shardings)
    else:
        params = t5_files.load(directory, config, traverse_util.unflatten_dict(shardings))
    jax.block_until_ready(params)
    report = {"made": made, "seconds": time.monotonic() - start}
    print(json.dumps(report | {"high_water": memory_of("self")["VmHWM"]}), flush=True)


def measure(directory, size, case):
    """Loads in a fresh process; returns bytes of extra host memory, and seconds."""
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    child = subprocess.Popen(
        [sys.executable, __file__, "--child", directory, "--size", size, "--cases", case],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline().strip() == "ready"
    before = memory_of(child.pid)
    samples, done = [], threading.Event()

    def sample():
        while not done.is_set():
            moment, memory = time.monotonic(), memory_of(child.pid)
            if memory:
                samples.append((moment, memory))
            time.sleep(SAMPLE_SECONDS)

    thread = threading.Thread(target=sample)
    thread.start()
    report, _ = child.communicate("go\n")
    done.set()
    thread.join()
    assert child.returncode == 0
    return summary(before, samples, json.loads(report))


def summary(before, samples, report):
    """Computes the peaks from samples (time, memory) and from the times at which arrays were made."""
    held, made, extra, anonymous = 0, list(reversed(report["made"])), 0, 0
    for moment, memory in samples:
        # The time is taken before the memory is read, so no array is subtracted too early.
        while made and made[-1][0] <= moment:
            held += made.pop()[1]
        extra = max(extra, memory["VmRSS"] - before["VmRSS"] - held)
        anonymous = max(anonymous, memory["RssAnon"] - before["RssAnon"] - held)
    total = sum(size for _, size in report["made"])
    high_water = report["high_water"] - before["VmRSS"] - total
    return {
        "model_bytes": total,
        "extra_bytes": max(extra, high_water),
        "sampled_extra_bytes": extra,
        "sampled_extra_anonymous_bytes": anonymous,
        "high_water_extra_bytes": high_water,
        "resident_before_bytes": before["VmRSS"],
        "samples": len(samples),
        "seconds": report["seconds"],
    }


def run_case(size, case, repeats, folder):
    """Runs all repeats of one case, on files of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        write_model(Path(directory), config_of(size, case), np.dtype(CASES[case][0]))
        runs = [measure(directory, size, case) for _ in range(repeats)]
    total = runs[0]["model_bytes"]
    extra, bound = max(run["extra_bytes"] for run in runs), total // 4 + GIB
    return {
        "model_bytes": total,
        "bound_bytes": bound,
        "extra_bytes": extra,
        "within_bound": extra < bound,
        "seconds": statistics.median(run["seconds"] for run in runs),
        "runs": runs,
    }


def line(size, case, result):
    extra, bound = result["extra_bytes"] / GIB, result["bound_bytes"] / GIB
    return (
        f"{NAME} {size}-{case}: peak extra host memory {extra:.3f} GiB (bound {bound:.3f} GiB), "
        f"{result['seconds']:.2f} s"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="folder for the temporary files; default: the system's")
    parser.add_argument("--quick", action="store_true", help="size small, once")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        load_in_this_process(Path(args.child), args.size, args.cases[0])
        return
    if args.quick:
        args.size, args.repeats = "small", 1
    results = {}
    for case in args.cases:
        results[case] = run_case(args.size, case, args.repeats, args.folder)
        print(f"{case}: {results[case]['model_bytes'] / GIB:.2f} GiB loaded", flush=True)
    settings = {
        "size": args.size,
        "repeats": args.repeats,
        "devices": DEVICES,
        "shard_bytes": SHARD_BYTES,
        "sample_seconds": SAMPLE_SECONDS,
        "bound": "model bytes / 4 + 1 GiB",
        "page_cache": "warm",
    }
    harness.save(f"{NAME}.quick" if args.quick else NAME, settings, results)
    for case, result in results.items():
        print(line(args.size, case, result))
    # Only the control is meant to exceed the bound.
    sys.exit(not all(result["within_bound"] for case, result in results.items() if case != CONTROL))


if __name__ == "__main__":
    main()
