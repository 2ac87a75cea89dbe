"""The storefront demo end to end; then again from the same teacher, ended by SIGTERM in the middle of a stage and resumed."""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import ROOT, Record, environment
from safetensors.numpy import load_file

_COMPARED = ("*/*/result.safetensors", "records/records.parquet", "report/metrics.json")


class Plan(NamedTuple):
    """What is run.

    Attributes:
      command: the command of `delrec`.
      shared: folders of the first workdir that the others start with.
      interrupted: folder of the stage during which SIGTERM is sent.
      flags: overrides of the config.
    """

    command: str = "run"
    shared: tuple[str, ...] = ("data", "lm", "teacher")
    interrupted: str = "prompt"
    flags: tuple[str, ...] = ()


TINY = Plan(
    *("baseline", ("data",), "teacher"),
    flags=(
        *("--config.data.storefront.users=48", "--config.data.storefront.series=2"),
        *("--config.candidates.num=8", "--config.tune.controls=('random',)"),
        *("--config.teacher.sasrec.width=16", "--config.teacher.sasrec.layers=1"),
        *("--config.teacher.loop.steps=40", "--config.teacher.loop.evaluate_every=5"),
    ),
)


def run(record: Record, tiny: bool, plan: Plan | None = None) -> None:
    """Runs the plan. All runs share a cache of compiled programs; the later ones are compared with the first by file."""
    plan = plan or (TINY if tiny else Plan())
    with tempfile.TemporaryDirectory() as folder:
        first, second, third = (Path(folder) / name for name in ("first", "second", "third"))
        record.measure("uninterrupted", _whole, plan, first, record)
        record.measure("told to end", _told_to_end, plan, first, second, record)
        record.measure("resumed", _whole, plan, second, record)
        same = record.measure("resumed against uninterrupted", differences, first, second)
        if same and same.get("different"):  # is it the resuming, or does any second run differ?
            _begin_as(plan, first, third)
            record.measure("repeated", _whole, plan, third, record)
            record.measure("repeated against uninterrupted", differences, first, third)


def _whole(plan: Plan, workdir: Path, record: Record) -> dict[str, Any]:
    """Runs the command; its seconds, those of its stages and trainings (to each log's last row), and HR@1 of every system."""
    start = time.monotonic()
    status, said = _ended(_delrec(plan, workdir), record)
    stages = re.findall(r"(\w+): done in (\d+) s", said)
    found = {
        "seconds": round(time.monotonic() - start, 1),
        "status": status,
        "stages, s": {name: int(seconds) for name, seconds in stages},
        "trainings, s and steps": {},
    }
    for path in sorted(workdir.rglob("metrics.jsonl")):
        row = json.loads(path.read_text().splitlines()[-1])
        name = str(path.parent.relative_to(workdir))
        found["trainings, s and steps"][name] = [row["seconds"], row["step"]]
    if status:
        found["last lines"] = said.strip().splitlines()[-6:]
    if (path := workdir / "report" / "metrics.json").exists():
        found["HR@1"] = {
            f"{row['system']}, {row['split']}": [row["value"], row["ci_low"], row["ci_high"]]
            for row in json.loads(path.read_text())
            if (row["protocol"], row["metric"]) == ("full", "HR@1")
        }
    return found


def _told_to_end(plan: Plan, first: Path, workdir: Path, record: Record) -> dict[str, Any]:
    """Sends SIGTERM as soon as the stage's log has two rows, in the middle of its first training."""
    _begin_as(plan, first, workdir)
    process = _delrec(plan, workdir)
    while process.poll() is None and record.left > 0:
        logs = (workdir / plan.interrupted).rglob("metrics.jsonl")
        if any(len(path.read_text().splitlines()) > 1 for path in logs):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    status, said = _ended(process, record)
    return {"status (75: in order)": status, "notice": said.strip().splitlines()[-1:]}


def differences(first: Path, second: Path) -> dict[str, Any]:
    """Compares two workdirs: which weights and reports are the same to the last bit, and by how much the others differ."""
    found: dict[str, Any] = {"same": [], "different": {}}
    for path in sorted(path for pattern in _COMPARED for path in first.glob(pattern)):
        name = str(path.relative_to(first))
        other = second / name
        if not other.exists():
            found["different"][name] = "missing"
        elif path.read_bytes() == other.read_bytes():
            found["same"].append(name)
        elif path.suffix == ".safetensors":
            ours, theirs = load_file(path), load_file(other)
            apart = [np.abs(ours[key] - theirs[key].astype(float)).max() for key in ours]
            found["different"][name] = f"by {max(apart):.3g} at most"
        else:
            found["different"][name] = "in some bytes"
    return found


def _begin_as(plan: Plan, first: Path, workdir: Path) -> None:
    for name in plan.shared:
        shutil.copytree(first / name, workdir / name)


def _delrec(plan: Plan, workdir: Path) -> subprocess.Popen:
    module = [sys.executable, "-m", "delrec_jax.cli", plan.command]
    flags = ["--config=configs/storefront.py", f"--workdir={workdir}", *plan.flags]
    with workdir.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            module + flags, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT
        )


def _ended(process: subprocess.Popen, record: Record) -> tuple[int | str, str]:
    """Exit status and all output; kills a process that does not end in time."""
    status: int | str = "no time left"
    try:
        status = process.wait(max(1.0, record.left))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    workdir = next(flag for flag in process.args if flag.startswith("--workdir="))
    return status, Path(workdir.removeprefix("--workdir=")).with_suffix(".log").read_text()
