"""Does a killed run end as if it had never been killed? SIGKILLs at random moments, then a comparison of all bits.

    .venv/bin/python benchmarks/faults.py [--quick] [--kills=200] [--hours=2] [--room=DIR] [--seed=0]

The tests' tiny storefront runs of DELRec and of P2Rec, every stage, with longer loops and many checkpoints, are made once
without disturbance. Then a run of each method in turn is started, killed with SIGKILL after a random time, started again,
killed again, and so on; every other kill of a method waits until something is being written, and comes at most a tenth of a
second later. If a run ends before its last kill, its files are compared and a new one is started. Each finished run must have
left the same files as the undisturbed one (`leftovers.digests`), to the last bit. A run that came no further between two kills
is given more time before the next.

Writes `benchmarks/results/faults.json`, one row per kill; exits with status 1 if anything differs. After `--hours` no kill
begins; the runs in progress are finished and compared. With `--room`, everything stays in that folder, and the same command
continues a series that was ended: SIGINT and SIGTERM write what there is so far, and say how many of the kills were followed
by a comparison. `--hours=0` ends a series early, with its last comparisons. `--quick`: six kills.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from leftovers import differing, digests, reached, unfinished_saves, where

from delrec_jax.files import write_text

NAME = "faults"
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from tiny_p2rec import P2REC  # noqa: E402  (the path comes first)
from tiny_storefront import CONFIG, FEW_BASELINES, TINY  # noqa: E402


def _loop(section: str, steps: int, evaluate: int, save: int) -> tuple[str, ...]:
    loop = f"--config.{section}.loop"
    return (
        f"{loop}.steps={steps}",
        f"{loop}.evaluate_every={evaluate}",
        f"{loop}.checkpoint_every={save}",
    )


_BEGINNING = (*_loop("pretrain", 40, 10, 4), *_loop("teacher", 40, 10, 4))
FLAGS = {
    "delrec": (
        *(*TINY, *FEW_BASELINES, *_BEGINNING),
        *_loop("distill", 30, 6, 4),
        *_loop("tune", 30, 6, 4),
    ),
    "p2rec": ("--config.method=p2rec", *P2REC, *_BEGINNING, *_loop("parse", 40, 8, 4)),
}
LONGEST_WAIT = 30.0  # seconds to wait for a save, where a kill should come during one
LATER = 0.1  # seconds into a save, at most


def start(method: str, workdir: Path, log: Any) -> subprocess.Popen:
    """Starts `delrec run`, as a user would type it."""
    command = [str(Path(sys.executable).with_name("delrec")), "run", CONFIG]
    flags = [f"--workdir={workdir}", *FLAGS[method]]
    return subprocess.Popen([*command, *flags], stdout=log, stderr=log, start_new_session=True)


@dataclass
class Series:
    """The kills so far, kept in `state.json` of the room after each of them."""

    room: Path
    facts: dict[str, Any]  # what a series must not change: seed, flags and commit
    whole: dict[str, Any]  # method -> seconds and digests of the undisturbed run
    rows: list[dict[str, Any]]  # the kills
    runs: list[dict[str, Any]]  # those that were finished and compared

    def keep(self) -> None:
        """Stores the series, so that the same command continues it."""
        kept = {"facts": self.facts, "whole": self.whole, "rows": self.rows, "runs": self.runs}
        write_text(self.room / "state.json", json.dumps(kept, indent=1))

    def number(self, method: str) -> int:
        """Of the method's run in progress, or of the next one."""
        return 1 + sum(run["method"] == method for run in self.runs)

    def workdir(self, method: str) -> Path:
        """Of the method's run in progress, or of the next one."""
        return self.room / f"{method}_{self.number(method)}"

    def of_run(self, method: str, number: int) -> list[dict[str, Any]]:
        """The kills of one run."""
        return [row for row in self.rows if (row["method"], row["number"]) == (method, number)]

    def finish(self, method: str, workdir: Path) -> float:
        """Runs to the end and returns the seconds that it took."""
        started = time.monotonic()
        with (self.room / "log").open("a") as log:
            wait(start(method, workdir, log), self.room)
        return time.monotonic() - started

    def undisturbed(self, method: str) -> None:
        """Makes the run that the others are compared with, unless an earlier sitting did."""
        if method in self.whole:
            return
        workdir = self.room / f"whole_{method}"
        shutil.rmtree(workdir, ignore_errors=True)  # one that was interrupted is no measure
        seconds = self.finish(method, workdir)
        self.whole[method] = {"seconds": round(seconds, 1), "files": digests(workdir)}
        self.keep()

    def compare(self, method: str) -> None:
        """Compares the run that has ended with the undisturbed one; its folder stays only if they differ."""
        number, workdir = self.number(method), self.workdir(method)
        different = differing(self.whole[method]["files"], digests(workdir))
        kills = len(self.of_run(method, number))
        self.runs.append(
            {"method": method, "number": number, "kills": kills, "different": different}
        )
        self.keep()
        if not different:
            shutil.rmtree(workdir)
        print(
            f"{method} {number}: {kills} kills, {len(different)} files different {different}",
            flush=True,
        )

    def window(self, method: str) -> float:
        """Seconds after its start within which the run is killed: more after each kill before which it came no further."""
        base, most = min(max(20.0, self.whole[method]["seconds"] / 8), 60.0), 1.0
        for row in self.of_run(method, self.number(method)):
            most = 1.0 if row["further"] else most * 1.5
        return base * most

    def kill(self, method: str) -> None:
        """Starts the run and kills it; compares it instead if it ended first."""
        rng = random.Random(f"{self.facts['seed']} {len(self.rows)}")
        in_save = sum(row["method"] == method for row in self.rows) % 2 == 1
        window = self.window(method)
        delay = rng.uniform(window / 4, window)
        workdir, before = self.workdir(method), reached(self.workdir(method))
        left = unfinished_saves(workdir)
        with (self.room / "log").open("a+") as log:
            begins, started = log.seek(0, os.SEEK_END), time.monotonic()
            process = start(method, workdir, log)
            try:
                while time.monotonic() - started < delay and process.poll() is None:
                    left &= unfinished_saves(workdir)  # an inode may be used again
                    time.sleep(0.05)
                while in_save and process.poll() is None:
                    new = unfinished_saves(workdir) - left
                    if new or time.monotonic() - started > delay + LONGEST_WAIT:
                        time.sleep(rng.uniform(0, LATER))
                        break
            finally:
                ended = process.poll()
                end(process)
            log.seek(begins)
            said = log.read()
        if ended is not None:
            check(ended, self.room)
            self.compare(method)
            return
        stages = re.findall(r"^(\w+) \.\.\.$", said, re.MULTILINE)
        row = {
            "kill": len(self.rows) + 1,
            "method": method,
            "number": self.number(method),
            "seconds": round(time.monotonic() - started, 2),
            "stage": stages[-1] if stages else "starting",
            **where(workdir),
            "in_save": bool(unfinished_saves(workdir) - left),
            "further": reached(workdir) != before,
        }
        self.rows.append(row)
        self.keep()
        print(json.dumps(row), flush=True)

    def summary(self) -> dict[str, Any]:
        """The counts; kills of a run that was not finished and compared say nothing yet."""
        compared = {(run["method"], run["number"]) for run in self.runs}
        followed = [row for row in self.rows if (row["method"], row["number"]) in compared]
        by_stage = Counter(f"{row['method']} {row['stage']}" for row in followed)
        in_save = Counter(f"{row['method']} {row['stage']}" for row in followed if row["in_save"])
        return {
            "kills": len(self.rows),
            "kills_followed_by_a_comparison": len(followed),
            "during_a_save": sum(in_save.values()),
            "by_stage": {name: [count, in_save[name]] for name, count in sorted(by_stage.items())},
            "runs_compared": len(self.runs),
            "files_compared": {name: len(one["files"]) for name, one in self.whole.items()},
            "undisturbed_seconds": {name: one["seconds"] for name, one in self.whole.items()},
            "different": [run for run in self.runs if run["different"]],
        }


def end(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait(process: subprocess.Popen, room: Path) -> None:
    try:
        check(process.wait(), room)
    finally:
        end(process)


def check(status: int, room: Path) -> None:
    if status:
        last = (room / "log").read_text()[-2000:]
        sys.exit(f"a run ended with status {status}; its last words in {room / 'log'}:\n{last}")


def opened(room: Path, seed: int) -> Series:
    """The series of this folder, or a new one."""
    room.mkdir(parents=True, exist_ok=True)
    path = room / "state.json"
    asked = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    facts = {"seed": seed, "flags": {k: list(v) for k, v in FLAGS.items()}, "commit": commit}
    kept = json.loads(path.read_text()) if path.exists() else {"facts": facts}
    changed = [name for name, value in facts.items() if kept["facts"][name] != value]
    if changed:
        sys.exit(
            f"{path}: its series has another {' and another '.join(changed)}; give another --room"
        )
    whole, rows, runs = kept.get("whole", {}), kept.get("rows", []), kept.get("runs", [])
    return Series(room, facts, whole, rows, runs)


def go(series: Series, kills: int, hours: float) -> None:
    ends = time.monotonic() + 3600 * hours
    for method in FLAGS:
        series.undisturbed(method)
    turn = len(series.rows)
    while len(series.rows) < kills and time.monotonic() < ends:
        series.kill(tuple(FLAGS)[turn % len(FLAGS)])
        turn += 1
    for method in FLAGS:
        if series.of_run(method, series.number(method)):
            series.finish(method, series.workdir(method))
            series.compare(method)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--room", type=Path, help="default: a folder that is removed at the end")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kills = 6 if options.quick else options.kills
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    with tempfile.TemporaryDirectory() as passing:
        series = opened(options.room or Path(passing), options.seed)
        try:
            go(series, kills, options.hours)
        finally:
            told = series.summary()
            settings = {"kills": kills, "hours": options.hours, **series.facts}
            path = harness.save(
                f"{NAME}.quick" if options.quick else NAME, settings, {**told, "rows": series.rows}
            )
            print(f"{NAME}: {json.dumps(told)}\n{path}", flush=True)
    sys.exit(bool(told["different"]))


if __name__ == "__main__":
    main()
