"""A run that is killed again and again ends where an undisturbed one ends, to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_storefront import CONFIG, TINY

from delrec_jax.training.watching import TIMINGS

pytestmark = pytest.mark.slow

# Longer loops with many checkpoints, so that a kill falls between two of them.
LONGER = (
    *TINY,
    "--config.pretrain.loop.steps=40",
    "--config.pretrain.loop.evaluate_every=10",
    "--config.pretrain.loop.checkpoint_every=4",
    "--config.distill.loop.steps=30",
    "--config.distill.loop.evaluate_every=6",
    "--config.distill.loop.checkpoint_every=4",
    "--config.tune.loop.steps=30",
    "--config.tune.loop.evaluate_every=6",
    "--config.tune.loop.checkpoint_every=4",
)
DEADLINE = 400  # seconds for one command, on a busy machine

# The run that must have a checkpoint, and no result yet, when it is killed.
MOMENTS = ("lm/round-1", "prompt/shuffled", "adapter/random")


def start(workdir, log):
    """`delrec run`, as a user types it."""
    command = [Path(sys.executable).with_name("delrec"), "run", CONFIG, f"--workdir={workdir}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [*command, *LONGER], stdout=log, stderr=log, env=environment, start_new_session=True
    )


def finish(workdir, log):
    process = start(workdir, log)
    assert process.wait(DEADLINE) == 0, Path(log.name).read_text()[-2000:]


def checkpoints(folder):
    """Steps of the whole checkpoints of a training run."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return sorted(int(name) for name in names if name.isdigit())


def kill_in(workdir, moment, log):
    """Starts the run and kills it once the named training has a checkpoint; returns that checkpoint's step."""
    process = start(workdir, log)
    ends = time.monotonic() + DEADLINE
    folder = workdir / moment
    while not any(checkpoints(folder)):  # the first one may be that of step 0
        assert process.poll() is None, f"ended too early: {Path(log.name).read_text()[-2000:]}"
        assert time.monotonic() < ends
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "result.safetensors").exists(), "the kill came too late"
    return checkpoints(folder)[-1]


def logs(workdir):
    """All rows of all training logs, without the clock."""
    rows = []
    for path in sorted(workdir.glob("*/*/metrics.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            rows.append({name: value for name, value in row.items() if name not in TIMINGS})
    return rows


def test_a_killed_run_goes_on_and_ends_bit_identical(tmp_path):
    with (tmp_path / "log").open("w") as log:
        finish(tmp_path / "whole", log)
        killed = tmp_path / "killed"
        for moment in MOMENTS:
            assert kill_in(killed, moment, log) > 0
        assert not (killed / "report" / "metrics.json").exists()
        finish(killed, log)
    whole = tmp_path / "whole"
    name = "report/metrics.json"
    assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert len(logs(whole)) > 30 and logs(killed) == logs(whole)
    results = sorted(path.relative_to(whole) for path in whole.glob("*/*/result.safetensors"))
    assert len(results) == 3 + 5 + 4
    for result in results:
        assert (killed / result).read_bytes() == (whole / result).read_bytes(), result
    said = (tmp_path / "log").read_text()
    assert said.count("pretrain: finished before, skipped") == 2
