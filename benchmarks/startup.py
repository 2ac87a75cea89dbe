"""Seconds that a storefront run of a few steps takes, with a cold and with a warm compilation cache.

    .venv/bin/python benchmarks/startup.py [--quick]

Nearly all of such a run is start-up: importing, compiling (or reading compiled programs), and everything else before a first
step. Each round begins with an empty cache: one run fills it, and a second one, in another workdir next to it, uses it. In the
last line "ours" is warm and "peer" is cold. `--quick`: one round.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

from delrec_jax.workdir.session import CACHE

NAME = "startup"
ROOT = Path(__file__).parents[1]
ROUNDS = 3
FEW_STEPS = (
    *(
        f"--config.{stage}.loop.{key}=1"
        for stage in ("pretrain", "teacher", "distill")
        for key in ("steps", "evaluate_every", "checkpoint_every")
    ),
    "--config.pretrain.optimizer.warmup_steps=0",
    "--config.pretrain.gate.attributes=0.0",
    "--config.pretrain.gate.next_in_series=0.0",
    "--config.data.storefront.users=200",
    *(f"--config.tune.loop.{key}=8" for key in ("steps", "evaluate_every", "checkpoint_every")),
    "--config.tune.adalora.interval=1",
)


def seconds_of_run(workdir: Path) -> float:
    """Seconds of a complete run in a process of its own."""
    console = Path(sys.executable).with_name("delrec")
    flags = [f"--config={ROOT / 'configs' / 'storefront.py'}", f"--workdir={workdir}", *FEW_STEPS]
    started = time.monotonic()
    done = subprocess.run([console, "run", *flags], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return time.monotonic() - started


def size_mib(folder: Path) -> float:
    """MiB of all files in the folder and below it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    rounds = 1 if parser.parse_args().quick else ROUNDS
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as room:
            for name in seconds:
                seconds[name].append(seconds_of_run(Path(room) / name))
            size = size_mib(Path(room) / CACHE)
    middle = harness.medians(seconds)
    harness.save(
        NAME if rounds == ROUNDS else f"{NAME}.quick",
        {"rounds": rounds, "flags": FEW_STEPS},
        {"seconds": seconds, "cache_mib": round(size, 2)},
    )
    print(
        harness.ratio_line(NAME, "storefront", ours=middle["warm"], peer=middle["cold"], unit="s")
    )


if __name__ == "__main__":
    main()
