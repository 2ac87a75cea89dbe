"""The project's own tests on the accelerator: those that need one, then those of the parts that compute on it."""

import os
import re
import shutil
import subprocess
import sys
from typing import Any

from measuring import ROOT, Record, environment

_PARTS = ("language", "training", "teachers", "evaluation", "delrec", "p2rec")


def run(record: Record, tiny: bool) -> None:
    """Runs the tests; skipped where there is no GPU, and with `tiny` only the tests that need one."""
    if not shutil.which("nvidia-smi"):
        record.keep("tests", {"skipped": "no GPU"})
        return
    record.measure("marked gpu", pytest, ["-m", "gpu", "tests/language", "-p", "no:xdist"], record)
    if not tiny:
        folders = [f"tests/{part}" for part in _PARTS]
        chosen = ["-m", "not slow and not parity", "-n", str(min(8, os.cpu_count() or 1))]
        record.measure("of parts that compute", pytest, [*chosen, *folders], record)


def pytest(arguments: list[str], record: Record) -> dict[str, Any]:
    """Runs pytest; its last line, and every failure with its message."""
    command = [sys.executable, "-m", "pytest", "-rf", "--tb=line", *arguments]
    try:
        said = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=max(1.0, record.left),
        ).stdout
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode() + "\nno time left"
    lines = said.strip().splitlines()
    failed = [line[:400] for line in lines if re.match(r"(FAILED|ERROR) ", line)]
    return {"summary": lines[-1] if lines else "nothing was said", "failed": failed}
