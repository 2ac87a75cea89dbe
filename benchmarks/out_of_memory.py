"""Is a run that the system kills for want of memory finished by the same command? A tiny run whose memory grows by steps.

    sudo .venv/bin/python benchmarks/out_of_memory.py [--quick] [--steps=100]

The tests' tiny storefront runs of DELRec and of P2Rec, every stage, are made once in a control group of their own without a
limit, which tells the most memory that each needs. Then each begins again under a fraction of that and is started again after
each kill, with a little more: so it is killed at another place each time. Each start must end with status 0, or be killed by
the system, or say in one line that memory is short; the run that ends must have left the same files as the first
(`leftovers.digests`), to the last bit. Control groups need root (Linux, version 1 or 2; nothing is swapped). Writes
`benchmarks/results/out_of_memory.json`; exits with status 1 if anything else happened, or if nothing was killed.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
from leftovers import differing, digests, where

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from compiling import QUICK_ENVIRONMENT  # noqa: E402  (the path comes first)
from tiny_p2rec import P2REC  # noqa: E402
from tiny_storefront import CONFIG, FEW_BASELINES, TINY  # noqa: E402

FLAGS = {"delrec": (*TINY, *FEW_BASELINES), "p2rec": ("--config.method=p2rec", *P2REC)}
FIRST, LAST = (
    0.5,
    1.3,
)  # limits, as shares of what the undisturbed run needs; half of it goes for the libraries
GROUPS = Path("/sys/fs/cgroup")


class Group:
    """A control group whose processes share a limit of memory, of either version."""

    def __init__(self, name: str) -> None:
        first = (GROUPS / "memory").is_dir()
        self.place = (GROUPS / "memory" if first else GROUPS) / name
        self.limit = self.place / ("memory.limit_in_bytes" if first else "memory.max")
        self.most = self.place / ("memory.max_usage_in_bytes" if first else "memory.peak")
        self.swap = None if first else self.place / "memory.swap.max"

    def make(self, limit: int | None) -> None:
        """Makes the group, with a limit in bytes or without."""
        self.place.mkdir()
        if self.swap is not None and self.swap.exists():
            self.swap.write_text("0")
        if limit is not None:
            self.limit.write_text(str(limit))

    def enter(self) -> None:
        """Puts the calling process into the group."""
        (self.place / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def group(limit: int | None) -> Iterator[Group]:
    """A group for one command, gone afterwards."""
    made = Group(f"delrec-{os.getpid()}")
    made.make(limit)
    try:
        yield made
    finally:
        made.place.rmdir()


def run(method: str, workdir: Path, cache: Path, enter: Callable[[], None]) -> tuple[int, str]:
    """`delrec run` in a group, compiled as the tests compile: its status and the last line that it said."""
    console = str(Path(sys.executable).with_name("delrec"))
    done = subprocess.run(
        [console, "run", CONFIG, f"--workdir={workdir}", *FLAGS[method]],
        env={**os.environ, **QUICK_ENVIRONMENT, **harness.cached(cache)},
        capture_output=True,
        text=True,
        preexec_fn=enter,
    )
    return done.returncode, (done.stderr.splitlines() or [""])[-1]


def ended(status: int, said: str) -> str:
    """How a start ended: "done", "killed", "told", or what else happened."""
    if status == 0:
        return "done"
    if status == -signal.SIGKILL:
        return "killed"
    if status == 2 and said.startswith("delrec: ") and "out of memory" in said:
        return "told"
    return f"status {status}: {said[:200]}"


def tried(method: str, steps: int, room: Path) -> dict[str, Any]:
    """The undisturbed run, then the one whose memory grows; how each start ended."""
    cache, whole, workdir = room / "cache", room / f"{method}_whole", room / method
    with group(None) as free:
        status, said = run(method, whole, cache, free.enter)
        needed = int(free.most.read_text())
    if status:
        sys.exit(f"the undisturbed run of {method} ended with status {status}: {said}")
    rows = []
    for number in range(steps + 1):
        limit = int(needed * (FIRST + (LAST - FIRST) * number / steps))
        with group(limit) as limited:
            status, said = run(method, workdir, cache, limited.enter)
        place = where(workdir) if workdir.is_dir() else {"run": "", "checkpoint": None}
        row = {"method": method, "mib": limit >> 20, "ended": ended(status, said), **place}
        print(row, flush=True)
        if status == 0:
            break
        rows.append(row)
    kept = digests(whole)
    return {
        "needed_mib": needed >> 20,
        "rows": rows,
        "finished": status == 0,
        "files_compared": len(kept),
        "different": differing(kept, digests(workdir)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="ten steps")
    parser.add_argument("--steps", type=int, default=100, help="how many times the memory grows")
    options = parser.parse_args()
    steps = 10 if options.quick else options.steps
    with tempfile.TemporaryDirectory() as room:
        found = {method: tried(method, steps, Path(room)) for method in FLAGS}
    harness.save(
        f"out_of_memory{'.quick' if options.quick else ''}", {"steps": steps, "flags": FLAGS}, found
    )
    bad = 0
    for method, one in found.items():
        ends = Counter(row["ended"] for row in one["rows"])
        wrong = [row for row in one["rows"] if row["ended"] not in ("killed", "told")]
        bad += len(wrong) + len(one["different"]) + (not one["finished"]) + (not ends["killed"])
        print(
            f"out_of_memory {method}: {dict(ends)}, in {dict(Counter(row['run'] for row in one['rows']))}; finished: "
            f"{one['finished']}; {one['files_compared']} files, {len(one['different'])} different"
        )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
