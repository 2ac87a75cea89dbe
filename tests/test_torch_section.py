"""The section `torch` of benchmarks/accelerator: where PyTorch cannot be imported, the record says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "benchmarks" / "accelerator" / "run.py"


@pytest.mark.parametrize("missing", ["torch", "transformers", "peft"])
def test_a_missing_library_is_a_reason_to_skip_and_no_error(tmp_path, missing):
    site, out = tmp_path / "site", tmp_path / "out"
    site.mkdir()
    for name in ("torch", "transformers", "peft"):
        broken = f"raise ImportError('there is no {name} here')" if name == missing else ""
        (site / f"{name}.py").write_text(broken)
    places = (str(site), str(RUN.parents[2]), os.environ.get("PYTHONPATH", ""))
    run = subprocess.run(
        [sys.executable, RUN, "--tiny", "--sections=torch", f"--out={out}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    section = json.loads((out / "accelerator.json").read_text())["sections"]["torch"]
    assert section.pop("ended").startswith("done in")
    why = f"{missing} cannot be imported: ImportError: there is no {missing} here"
    assert section == {"torch": {"skipped": why}}
