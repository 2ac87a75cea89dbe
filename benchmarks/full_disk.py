"""Does a run end with one line wherever its disk fills up, and lose nothing? A tiny run on a file system that grows by steps.

    sudo .venv/bin/python benchmarks/full_disk.py [--quick] [--steps=40] [--of=bytes|files]

The tests' tiny storefront run, all stages, is made once in a tmpfs with room enough, which tells how much it needs. A second
one begins in a tmpfs of a fraction of that and is started again after each failure, with a little more room: so the disk is
full at another write each time. `--of=files` limits the number of files and folders (inodes) instead of bytes. Each failure
must have status 2, one line on stderr that says what to do, and no traceback; the run that ends must have left the same
prompts, adapters, teacher, language model, rank records, figures and logs, to the last bit. Mounting needs root (Linux).
Writes `benchmarks/results/full_disk_bytes.json` or `..._files.json`; exits with 1 if anything differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faults
import harness

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from compiling import QUICK_ENVIRONMENT  # noqa: E402  (the path comes first)
from tiny_storefront import CONFIG, TINY  # noqa: E402

FIRST = 0.02  # the smallest room, as a share of what the run needs
SPARE = 1.6  # the largest: a resumed run keeps checkpoints more, and what was half written, until its stage ends
LIMITS = {"bytes": "size", "files": "nr_inodes"}
REMEDIES = ("make room", "free some space")
SLOW = 3600.0  # seconds that one start may take, on a busy machine


@contextmanager
def mounted(option: str) -> Iterator[Path]:
    """A tmpfs with these mount options, gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["mount", "-t", "tmpfs", "-o", option, "none", place], check=True)
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)


def run(workdir: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """`delrec run`, compiled as the tests compile; nothing but the workdir is on the small disk."""
    console = Path(sys.executable).with_name("delrec")
    return subprocess.run(
        [console, "run", CONFIG, f"--workdir={workdir}", *TINY],
        env={**os.environ, **QUICK_ENVIRONMENT, **harness.cached(cache)},
        capture_output=True,
        text=True,
        timeout=SLOW,
    )


def used(place: Path) -> dict[str, int]:
    """Bytes and inodes in use on this file system."""
    told = os.statvfs(place)
    return {
        "bytes": (told.f_blocks - told.f_bfree) * told.f_frsize,
        "files": told.f_files - told.f_ffree,
    }


def fault(done: subprocess.CompletedProcess[str]) -> str:
    """What is wrong with how a start on a full disk ended, or ""."""
    lines = done.stderr.splitlines()
    last = lines[-1] if lines else ""
    if done.returncode != 2:
        return f"status {done.returncode}"
    if not last.startswith("delrec: ") or not any(word in last for word in REMEDIES):
        return f"said: {last[:200]}"
    if "Traceback" in done.stderr:
        return f"traceback: {lines[-2][:200]}"
    return ""


def unfinished(workdir: Path) -> str:
    """The stage in which the run is."""
    return str(faults.where(workdir)["run"]) if workdir.is_dir() else "nothing"


def filled(of: str, steps: int, cache: Path) -> dict[str, Any]:
    """Makes the undisturbed run, then the one whose disk grows by steps; what each start came to."""
    option, rows = LIMITS[of], []
    with mounted("size=2g") as place:
        done = run(place / "run", cache)
        if done.returncode:
            sys.exit(f"the undisturbed run ended with status {done.returncode}: {done.stderr}")
        needed = used(place)[of]
        whole = faults.digests(place / "run")
    with mounted(f"{option}={int(needed * FIRST)}") as place:
        for number in range(steps + 1):
            room = int(needed * (FIRST + (SPARE - FIRST) * number / steps))
            subprocess.run(["mount", "-o", f"remount,{option}={room}", place], check=True)
            done = run(place / "run", cache)
            if not done.returncode:
                break
            rows.append({"room": room, "in": unfinished(place / "run"), "fault": fault(done)})
            print(rows[-1], flush=True)
        different = faults.differing(whole, faults.digests(place / "run"))
    return {
        "needed": needed,
        "rows": rows,
        "finished": not done.returncode,
        "files_compared": len(whole),
        "different": different,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="five steps")
    parser.add_argument("--steps", type=int, default=40, help="how many times the disk grows")
    parser.add_argument("--of", choices=sorted(LIMITS), default="bytes", help="what runs out")
    options = parser.parse_args()
    steps = 5 if options.quick else options.steps
    with tempfile.TemporaryDirectory() as cache:
        found = filled(options.of, steps, Path(cache))
    harness.save(
        f"full_disk_{options.of}{'.quick' if options.quick else ''}",
        {"steps": steps, "of": options.of, "flags": TINY},
        found,
    )
    rows, different = found["rows"], found["different"]
    faulty = [row for row in rows if row["fault"]]
    places = Counter(row["in"] for row in rows)
    print(
        f"full_disk {options.of}: {len(rows)} full disks ({len(faulty)} not told in one line), in "
        f"{', '.join(f'{where} {count}' for where, count in places.items())}; finished: {found['finished']}; "
        f"{found['files_compared']} files, {len(different)} different"
    )
    sys.exit(bool(faulty or different or not found["finished"]))


if __name__ == "__main__":
    main()
