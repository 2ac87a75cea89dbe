"""The same command on the same machine ends with the same bits; how far apart others are is in docs/results/robustness.md."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_storefront import CONFIG, FEW_BASELINES, ROOT, TINY

from delrec_jax.files import file_hash
from delrec_jax.training.watching import TIMINGS

GUIDE = ROOT / "docs" / "guides" / "machines.md"
DEADLINE = 1800  # seconds for one command, on a busy machine


def run(workdir, **environment):
    """`delrec run`, as a user types it, in a process and with a compilation cache of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    command = [Path(sys.executable).with_name("delrec"), "run", CONFIG, f"--workdir={workdir}"]
    ended = subprocess.run(
        [*command, *TINY, *FEW_BASELINES],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


def left(workdir):
    """What a run leaves behind that does not tell the time, by file."""
    patterns = ("*/*/result.safetensors", "data/*.npz", "records/*.parquet", "report/metrics.json")
    found = {
        path.relative_to(workdir).as_posix(): file_hash(path)
        for pattern in patterns
        for path in workdir.glob(pattern)
    }
    for path in workdir.glob("*/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.relative_to(workdir).as_posix()] = [
            {name: value for name, value in row.items() if name not in TIMINGS} for row in rows
        ]
    return found


def check_two_runs(folder, **environment):
    for name in ("one", "other"):
        run(folder / name, **environment)
    one, other = left(folder / "one"), left(folder / "other")
    assert len(one) > 20 and one == other


@pytest.mark.slow
def test_two_runs_of_one_config_have_the_same_bits(tmp_path):
    check_two_runs(tmp_path, JAX_PLATFORMS="cpu")


@pytest.mark.gpu
def test_two_runs_on_a_gpu_have_the_same_bits_under_the_flags_for_it(tmp_path):
    (flags,) = re.findall(r"XLA_FLAGS='([^']+)'", GUIDE.read_text())
    check_two_runs(tmp_path, JAX_PLATFORMS="cuda", XLA_FLAGS=flags)
