"""benchmarks/accelerator on a CPU, with tiny shapes: what is run on a borrowed GPU works, and says what it could not do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "benchmarks" / "accelerator" / "run.py"


@pytest.mark.parametrize(
    "sections",
    [
        {"machine": 4, "numerics": 5, "lm": 1, "ranking": 1},
        pytest.param({"teachers": 1}, marks=pytest.mark.slow),
    ],
    ids=["quick", "teachers"],
)
def test_every_section_measures_something_at_tiny_shapes(tmp_path, sections):
    """Section -> measurements, at least."""
    names = ",".join(sections)
    run = subprocess.run(
        [sys.executable, RUN, "--tiny", f"--sections={names}", f"--out={tmp_path}"],
        env={**os.environ, "PYTHONPATH": str(RUN.parents[2])},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "accelerator.json").read_text())["sections"]
    for name, least in sections.items():
        section = found[name]
        assert section.pop("ended").startswith("done in"), run.stderr
        section.pop("test, cudnn", None)  # a CPU has none, which is recorded as an error
        errors = {key: one for key, one in section.items() if "error" in dict_of(one)}
        assert not errors and len(section) >= least


def dict_of(found):
    return found if isinstance(found, dict) else {}


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
