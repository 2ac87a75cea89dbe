"""Runs the experiments behind the tables, one after another, and collects them in `results/`.

    python benchmarks/evidence/run.py --data=FOLDER --runs=FOLDER [--only=NAME,...] [--list] [--again] [--collect]

FOLDER of `--data` holds ml-100k/, office-products/, steam/ and beauty/ as atomic files. Every command has a workdir in the
folder of `--runs`, a log beside it (WORKDIR.log), and a line in journal.jsonl for each time it ran: command, commit, start,
seconds, status. What the journal and the workdir call finished is skipped; what was interrupted resumes, as `delrec` does.
After the commands of a name, its finished workdirs are collected. `--list` only prints what would run and what is left out;
`--collect` only collects; `--again` also runs finished commands (`delrec` repeats what a change affects and no more).
"""

import argparse
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments import EXPERIMENTS, LEFT_OUT, Command, Experiment, commands

from delrec_jax.errors import UserError
from delrec_jax.results.provenance import JOURNAL, RESULTS, ROOT, commit, journal, now
from delrec_jax.results.sources import finished
from delrec_jax.results.summary import collect

Start = Callable[[Sequence[str], Path], int]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs everything that is asked for; exits with 1 if a command or a collection failed."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, help="folder of the corpora")
    options.add_argument("--runs", type=Path, help="folder of the workdirs")
    options.add_argument("--only", default="*", help="names or workdirs; * stands for anything")
    options.add_argument("--results", type=Path, default=RESULTS, help="default: the repository's")
    options.add_argument("--list", action="store_true", help="print the commands, run nothing")
    options.add_argument("--again", action="store_true", help="also what is finished")
    options.add_argument("--collect", action="store_true", help="collect only, run nothing")
    values = options.parse_args(argv)
    chosen = commands(only=values.only)
    if not chosen:
        options.error(f"--only={values.only}: no such name or workdir; see --list")
    if values.list:
        print(listing(chosen, values.runs))
        return
    if values.runs is None or (values.data is None and not values.collect):
        options.error(
            "--data and --runs are needed (only --runs with --collect, neither with --list)"
        )
    # As an exception, so that the command that is running ends too, and the journal has its line.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed: list[str] = []
    if not values.collect:
        data, runs = values.data.resolve(), values.runs.resolve()
        failed = run_all(chosen, data, runs, again=values.again)
    names = {command.name for command in chosen}
    for experiment in EXPERIMENTS:
        if experiment.name in names:
            failed += collect_one(experiment, values.runs, values.results)
    if failed:
        print("failed: " + ", ".join(failed))
        sys.exit(1)


def listing(chosen: Sequence[Command], runs: Path | None) -> str:
    """The commands, with the state of each if the folder of the workdirs is known, and what is left out."""
    lines = []
    for command in chosen:
        state = "" if runs is None else "done  " if done(command, runs) else "to do "
        lines.append(state + command.text)
    return "\n".join([*lines, "", "Left out:", *(f"  {one}" for one in LEFT_OUT)])


def done(command: Command, runs: Path) -> bool:
    """Whether the workdir has its records, and the same command has made them."""
    workdir = runs / command.workdir
    rows = [row for row in journal(workdir) if row["rc"] == 0]
    return bool(rows) and rows[-1]["command"] == command.text and finished(workdir / command.writes)


def run_all(
    chosen: Sequence[Command],
    data: Path,
    runs: Path,
    *,
    again: bool = False,
    start: Start | None = None,
) -> list[str]:
    """Runs what is not done, one command at a time; returns the workdirs of those that failed.

    Args:
        chosen: the commands, in this order.
        data: folder of the corpora.
        runs: folder of the workdirs, logs and the journal.
        again: also run what is done.
        start: (words after `delrec`, log file) -> status; by default the package's command line, in a process of its own.

    Raises:
        KeyboardInterrupt: the user ended it; the journal has a line of it.
    """
    runs.mkdir(parents=True, exist_ok=True)
    failed = []
    for command in chosen:
        if not again and done(command, runs):
            print(f"{command.workdir}: done", flush=True)
            continue
        print(f"{command.workdir}: {command.text}", flush=True)
        row = {"workdir": command.workdir, "name": command.name, "command": command.text}
        row |= {**commit(), "start": now()}
        began, status = time.monotonic(), 130
        try:
            log = runs / f"{command.workdir}.log"
            status = (start or delrec)(command.arguments(data, runs), log)
        finally:
            seconds = round(time.monotonic() - began, 1)
            add(runs / JOURNAL, row | {"seconds": seconds, "rc": status})
        print(f"{command.workdir}: status {status} after {seconds:.0f} s", flush=True)
        if status:
            failed.append(command.workdir)
    return failed


def delrec(words: Sequence[str], log: Path, *, until: float = math.inf) -> int:
    """Runs `delrec` from the root of the repository; what it prints is added to the log.

    Args:
        words: the words after `delrec`.
        log: the file.
        until: `time.monotonic()` at which it is told to end: it saves what it has, and goes on when it is run again.
    """
    command = [sys.executable, "-m", "delrec_jax.cli", *words]
    limit = None if until == math.inf else max(0.0, until - time.monotonic())
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.wait()
        except BaseException:  # this script itself is told to end
            process.terminate()
            process.wait()
            raise


def add(path: Path, row: dict[str, Any]) -> None:
    """Adds a line to the journal."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def collect_one(experiment: Experiment, runs: Path, results: Path) -> list[str]:
    """Collects the finished workdirs of one name; returns its name if that failed."""
    own = commands([experiment])
    there = [one for one in own if done(one, runs)]
    missing = [one.workdir for one in own if one not in there]
    if missing:
        print(f"{experiment.name}: not finished, so not in the results: {', '.join(missing)}")
    if not there:
        return []
    try:
        path = collect(
            results / experiment.name,
            [str(runs / one.workdir) for one in there],
            compare=experiment.compare,
        )
    except UserError as error:
        print(f"{experiment.name}: {error}", file=sys.stderr)
        return [experiment.name]
    print(path)
    return []


if __name__ == "__main__":
    main()
