"""Does a killed run end as if it had never been killed? Twenty SIGKILLs at random moments, then a comparison of all bits.

    .venv/bin/python benchmarks/faults.py [--quick] [--kills=20] [--seed=0]

A storefront run (every stage, shortened) is made once without disturbance. A second one is started, killed with SIGKILL after
a random time, started again, killed again, and so on; every other kill waits until a checkpoint is being written. If the run
ends before the last kill, a new one is started. Each finished run must have the same prompts, adapters, teacher, language
model, rank records and training logs (without their timings) as the undisturbed one, to the last bit. Writes
`benchmarks/results/faults.json`, one row per kill; exits with status 1 if anything differs. `--quick`: three kills.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import harness

from delrec_jax.training.watching import TIMINGS

NAME = "faults"
ROOT = Path(__file__).parents[1]
SHORTENED = (
    "--config.data.storefront.users=200",
    "--config.pretrain.loop.steps=400",
    "--config.pretrain.loop.evaluate_every=50",
    "--config.pretrain.loop.checkpoint_every=20",
    "--config.pretrain.gate.attributes=0.0",
    "--config.pretrain.gate.next_in_series=0.0",
    "--config.teacher.loop.steps=300",
    "--config.teacher.loop.evaluate_every=50",
    "--config.teacher.loop.checkpoint_every=20",
    "--config.distill.loop.steps=120",
    "--config.distill.loop.evaluate_every=30",
    "--config.distill.loop.checkpoint_every=10",
    "--config.tune.loop.steps=80",
    "--config.tune.loop.evaluate_every=20",
    "--config.tune.loop.checkpoint_every=10",
)
FIRST, LAST = 5.0, 20.0  # a run is killed between these seconds after its start
LONGEST_WAIT = 30.0  # seconds to wait for a save, where a kill should come during one


def start(workdir: Path, log: Any) -> subprocess.Popen:
    """Starts `delrec run`, as a user would type it."""
    command = [str(Path(sys.executable).with_name("delrec")), "run"]
    flags = [f"--config={ROOT / 'configs' / 'storefront.py'}", f"--workdir={workdir}", *SHORTENED]
    return subprocess.Popen([*command, *flags], stdout=log, stderr=log, start_new_session=True)


def finish(workdir: Path, log: Any) -> float:
    """Runs to the end and returns the seconds that it took."""
    started = time.monotonic()
    status = start(workdir, log).wait()
    if status:
        sys.exit(f"the run ended with status {status}; see {log.name}")
    return time.monotonic() - started


def unfinished_saves(workdir: Path) -> set[int]:
    """Inodes of the folders of checkpoints in progress, or left by an earlier kill."""
    folders = workdir.glob("*/*/checkpoints/*.orbax-checkpoint-tmp")
    found = set()
    for folder in folders:
        with suppress(FileNotFoundError):  # finished meanwhile
            found.add(folder.stat().st_ino)
    return found


def kill(workdir: Path, log: Any, rng: random.Random, *, in_save: bool) -> dict[str, Any] | None:
    """Starts the run and kills it; returns where it was killed, or None if the run ended first."""
    delay, started = rng.uniform(FIRST, LAST), time.monotonic()
    left = unfinished_saves(workdir)
    process = start(workdir, log)
    while time.monotonic() - started < delay and process.poll() is None:
        time.sleep(0.01)
    while in_save and not unfinished_saves(workdir) - left and process.poll() is None:
        if time.monotonic() - started > delay + LONGEST_WAIT:
            break
    if process.poll() is not None:
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return {
        "seconds": round(time.monotonic() - started, 2),
        **where(workdir),
        "in_save": bool(unfinished_saves(workdir) - left),
    }


def where(workdir: Path) -> dict[str, Any]:
    """The training run in progress (or its stage, if none), and its latest complete checkpoint."""
    stages = [
        marker.parent
        for marker in workdir.glob("*/stage.json")
        if not json.loads(marker.read_text())["finished"]
    ]
    folder = stages[0] if stages else workdir
    runs = [run.parent for run in folder.glob("*/checkpoints")]
    runs = [run for run in runs if not (run / "result.safetensors").exists()]
    if not runs:
        return {"run": folder.name, "checkpoint": None}
    names = [path.name for path in (runs[0] / "checkpoints").iterdir()]
    steps = [int(name) for name in names if name.isdigit()]
    return {
        "run": str(runs[0].relative_to(workdir)),
        "checkpoint": max(steps, default=None),
    }


def digests(workdir: Path) -> dict[str, str]:
    """SHA-256 of what a run leaves behind, by file."""
    files = [*workdir.glob("*/*/result.safetensors"), *workdir.glob("records/*.parquet")]
    files += [workdir / "report" / "metrics.json"]
    found = {str(file.relative_to(workdir)): file.read_bytes() for file in files}
    for log in workdir.glob("*/*/metrics.jsonl"):
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        rows = [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]
        found[str(log.relative_to(workdir))] = json.dumps(rows).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(found.items())}


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Files that differ, or that only one of the runs has."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kills = 3 if options.quick else options.kills
    rng, rows, different = random.Random(options.seed), [], []
    with tempfile.TemporaryDirectory() as room, (Path(room) / "log").open("w") as log:
        seconds = finish(Path(room) / "whole", log)
        whole = digests(Path(room) / "whole")
        number, finished = 1, 0
        while len(rows) < kills:
            workdir = Path(room) / f"killed_{number}"
            found = kill(workdir, log, rng, in_save=len(rows) % 2 == 1)
            if found is None:  # it had ended before
                different += differing(whole, digests(workdir))
                number, finished = number + 1, finished + 1
                continue
            rows.append({"kill": len(rows) + 1, "workdir": number, **found})
            print(json.dumps(rows[-1]), flush=True)
        finish(workdir, log)
        different += differing(whole, digests(workdir))
    results = {
        "rows": rows,
        "runs_compared": finished + 1,
        "files_compared": len(whole),
        "undisturbed_seconds": round(seconds, 1),
        "different": different,
    }
    harness.save(
        f"{NAME}.quick" if options.quick else NAME,
        {"kills": kills, "seed": options.seed, "flags": SHORTENED},
        results,
    )
    in_saves = sum(row["in_save"] for row in rows)
    print(
        f"{NAME} storefront: {kills} kills ({in_saves} during a save), {finished + 1} resumed runs, {len(whole)} files each: "
        f"{len(different)} different"
    )
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
