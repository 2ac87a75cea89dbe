"""The project on one accelerator: ceilings, numerics, train steps (PyTorch's too), teachers, ranking, tests and the demo.

    python benchmarks/accelerator/run.py [--sections=machine,lm] [--seconds=600] [--out=DIR] [--tiny]

Each section is a process with a time limit of its own; what it has found by then is kept, errors too. Writes DIR/SECTION.json
as it goes and DIR/accelerator.json at the end; to keep that result, copy it to `benchmarks/results/accelerator_CARD.json`. See
README.md.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

# Seconds that a section may take.
LIMITS = {
    "machine": 40,
    "numerics": 150,
    "lm": 400,
    "torch": 400,
    "teachers": 120,
    "ranking": 40,
    "gpu_tests": 300,
    "pipeline": 700,
}
_MODULES = {"torch": "torch_peer"}  # of sections that are not named after their module
_GRACE = 10  # seconds past its limit after which a section that is still running is killed


def main() -> None:
    """Runs the sections one after another."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--sections", default=",".join(LIMITS), help="some of them, in order")
    options.add_argument("--seconds", type=float, default=sum(LIMITS.values()), help="in total")
    options.add_argument("--out", type=Path, help="folder of the results; default: a new one")
    options.add_argument(
        "--only", default="", help="regular expression that measurements must match"
    )
    options.add_argument("--tiny", action="store_true", help="tiny shapes, for a test on a CPU")
    options.add_argument("--child", default="", help=argparse.SUPPRESS)
    values = options.parse_args()
    if values.child:
        from measuring import Record

        record = Record(values.out / f"{values.child}.json", values.seconds, values.only)
        module = importlib.import_module(_MODULES.get(values.child, values.child))
        module.run(record, values.tiny)
        return
    sections = values.sections.split(",")
    if unknown := set(sections) - set(LIMITS):
        options.error(f"no section {', '.join(unknown)}: use some of {', '.join(LIMITS)}")
    out = values.out or Path(tempfile.mkdtemp(prefix="accelerator_"))
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + values.seconds
    ended = {}
    for name in sections:
        seconds = min(LIMITS[name], end - time.monotonic())
        flags = [f"--only={values.only}", *(["--tiny"] if values.tiny else [])]
        ended[name] = in_process(name, out, seconds, flags) if seconds > 5 else "no time left"
        print(f"{name}: {ended[name]}", flush=True)
    print(merge(out, ended))


def in_process(name: str, out: Path, seconds: float, flags: list[str]) -> str:
    """Runs one section; returns how it ended."""
    command = [sys.executable, __file__, f"--child={name}", f"--out={out}", f"--seconds={seconds}"]
    # No preallocation: peak memory is then that of the programs, and processes can share the card.
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
    }
    start = time.monotonic()
    process = subprocess.Popen([*command, *flags], env=environment, start_new_session=True)
    try:
        status = process.wait(seconds + _GRACE)
        how = "done" if status == 0 else f"ended with status {status}"
    except subprocess.TimeoutExpired:
        how = "ended after its time"
    with contextlib.suppress(ProcessLookupError):  # whatever the section itself started
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return f"{how} in {time.monotonic() - start:.0f} s"


def merge(out: Path, ended: dict[str, str]) -> Path:
    """Writes all sections into one file."""
    path = out / "accelerator.json"
    before = json.loads(path.read_text())["sections"] if path.exists() else {}
    for name, how in ended.items():
        part = out / f"{name}.json"
        found = json.loads(part.read_text()) if part.exists() else {}
        before[name] = {"ended": how, **found}
    record = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python", "benchmarks/accelerator/run.py", *sys.argv[1:]]),
        "sections": before,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


if __name__ == "__main__":
    main()
