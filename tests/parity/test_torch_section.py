"""The section `torch` of benchmarks/accelerator measures what stands beside our own figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytestmark = pytest.mark.parity

RUN = Path(__file__).parents[2] / "benchmarks" / "accelerator" / "run.py"


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    out = tmp_path_factory.mktemp("accelerator")
    places = (str(RUN.parents[2]), os.environ.get("PYTHONPATH", ""))
    run = subprocess.run(
        [sys.executable, RUN, "--tiny", "--sections=lm,torch", f"--out={out}"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, places)),
            "JAX_PLATFORMS": "cpu",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    return json.loads((out / "accelerator.json").read_text())["sections"]


@pytest.mark.parametrize("name", ["tiny distill torch+full", "tiny tune torch"])
def test_a_language_models_step_has_the_figures_of_ours(sections, name):
    ours, found = sections["lm"]["tiny distill xla+full"], sections["torch"][name]
    assert "error" not in found, found
    assert found["useful TFLOP"] == ours["useful TFLOP"]
    shared = {"step ms", "rounds", "first", "peak memory, GiB", "useful TFLOP", "tokens/s", "MFU"}
    assert shared | {"warm-up seconds"} == set(found) and shared <= set(ours)
    assert found["tokens/s"] * found["step ms"] == pytest.approx(4 * 64 * 1e3)


def test_the_teachers_step_and_the_versions_are_there(sections):
    found = sections["torch"]["tiny sasrec torch"]
    assert found["labels/s"] * found["step ms"] == pytest.approx(found["labels a step"] * 1e3)
    assert set(sections["torch"]["versions"]) == {"torch", "transformers", "peft"}
