"""Two processes on this machine as one run: the result of a single one; and when one dies, the other ends and both go on."""

import json
import shutil
import signal
import time

import chex
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from tiny_p2rec import P2REC
from tiny_storefront import CONFIG, TINY, delrec
from two_processes import DEADLINE, said, start

from delrec_jax.evaluation.top_lists import items_of, read_lists
from delrec_jax.training.watching import TIMINGS

LONG = (
    "--config.distill.loop.steps=100000",
    "--config.distill.loop.evaluate_every=50",
    "--config.distill.loop.checkpoint_every=10",
)


def begin(tiny_run, workdir, *stages):
    """A workdir with these stages of the tiny run done."""
    for folder in stages:
        shutil.copytree(tiny_run / folder, workdir / folder)
    return workdir


def rows(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in lines]


def test_two_processes_train_as_one(tiny_run, tmp_path):
    workdir, log = begin(tiny_run, tmp_path / "two", "data", "lm", "teacher"), tmp_path / "log"
    shared = ("--config.mesh.data=1", "--config.mesh.fsdp=2")
    # Copies of the weights in stage 1, shared weights in stage 2: another mesh in between is allowed.
    for stage, mesh in (("distill", ()), ("tune", shared)):
        both = start(stage, workdir, log, "--config.tune.controls=()", *mesh)
        assert [one.wait(DEADLINE) for one in both] == [0, 0], said(log, 0) + said(log, 1)
    for name in ("prompt/distilled", "prompt/true", "adapter/distilled"):
        found = rows(workdir / name / "metrics.jsonl")
        alone = rows(tiny_run / name / "metrics.jsonl")
        assert [row.keys() for row in found] == [row.keys() for row in alone]
        for ours, theirs in zip(found, alone, strict=True):
            assert (ours.pop("run"), ours.pop("step")) == (theirs.pop("run"), theirs.pop("step"))
            np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=1e-4)
    # Only the first one speaks and writes.
    assert "selected step" in said(log, 0) and "selected step" not in said(log, 1)


def test_two_processes_teach_as_one_with_another_number_of_steps_per_call(tiny_run, tmp_path):
    workdir, log = begin(tiny_run, tmp_path / "two", "data"), tmp_path / "log"
    both = start("teach", workdir, log, "--config.teacher.steps_per_call=3")
    assert [one.wait(DEADLINE) for one in both] == [0, 0], said(log, 0) + said(log, 1)
    found, alone = (
        rows(place / "teacher" / "model" / "metrics.jsonl") for place in (workdir, tiny_run)
    )
    assert [row["step"] for row in found] == [row["step"] for row in alone]
    for ours, theirs in zip(found, alone, strict=True):
        numbers = [name for name in ours if name != "run"]
        np.testing.assert_allclose(
            [ours[name] for name in numbers], [theirs[name] for name in numbers], atol=1e-4
        )


def test_two_processes_evaluate_as_one(tiny_run, tmp_path):
    """Users are spread over both, and ranks are gathered: the same records but for scores that rounding orders otherwise."""
    log, done = tmp_path / "log", ("data", "lm", "teacher", "closed_forms", "prompt", "adapter")
    workdir = begin(tiny_run, tmp_path / "two", *done)
    both = start("evaluate", workdir, log)
    assert [one.wait(DEADLINE) for one in both] == [0, 0], said(log, 0) + said(log, 1)
    ours, theirs = (
        pl.read_parquet(place / "records" / "records.parquet") for place in (workdir, tiny_run)
    )
    named = [name for name in ours.columns if name not in ("rank", "ties", "candidate_hash")]
    assert ours.select(named).equals(theirs.select(named))
    assert set(ours["system"]) >= {"teacher", "delrec", "hybrid(delrec+teacher)"}
    assert (ours["rank"] == theirs["rank"]).mean() > 0.98
    ours, theirs = (read_lists(place / "records")[0] for place in (workdir, tiny_run))
    assert (items_of(ours) == items_of(theirs)).mean() > 0.95  # a place that differs moves others


def test_two_processes_parse_as_one(tiny_run, tmp_path):
    log = tmp_path / "log"
    flags = [flag for flag in P2REC if flag.startswith("--config.parse") and "seeds" not in flag]
    flags.append("--config.method=p2rec")
    alone, workdir = (
        begin(tiny_run, tmp_path / name, "data", "lm", "teacher") for name in ("one", "two")
    )
    delrec("parse", CONFIG, f"--workdir={alone}", *TINY, *flags)
    both = start("parse", workdir, log, *flags)
    assert [one.wait(DEADLINE) for one in both] == [0, 0], said(log, 0) + said(log, 1)
    for name in ("categories", "model/result"):
        ours = load_file(workdir / "preference" / "seed-0" / f"{name}.safetensors")
        theirs = load_file(alone / "preference" / "seed-0" / f"{name}.safetensors")
        chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-5)
    assert "held-out users" in said(log, 0) and "held-out users" not in said(log, 1)


def checkpoints(workdir):
    folder = workdir / "prompt" / "distilled" / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def wait_for_checkpoint(workdir, both, log, after):
    ends = time.monotonic() + DEADLINE
    while not checkpoints(workdir) or checkpoints(workdir)[-1] <= after:
        assert all(one.poll() is None for one in both), said(log, 0) + said(log, 1)
        assert time.monotonic() < ends
        time.sleep(0.05)
    return checkpoints(workdir)[-1]


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_when_one_dies_the_other_ends_and_both_go_on(tiny_run, tmp_path, victim):
    workdir, log = begin(tiny_run, tmp_path / "two", "data", "lm", "teacher"), tmp_path / "log"
    both = start("distill", workdir, log, *LONG)
    wait_for_checkpoint(workdir, both, log, 0)
    both[victim].kill()
    status = both[1 - victim].wait(DEADLINE)
    message = said(log, 1 - victim)
    # Ours when a message to the dead one fails first, JAX's own when its heartbeat is missed first.
    if status == 69:
        assert "another process of this run was lost" in message and "Traceback" not in message
    else:
        assert status == -signal.SIGABRT and "another task died" in message
    saved = checkpoints(workdir)[-1]
    both = start("distill", workdir, log, *LONG)
    assert wait_for_checkpoint(workdir, both, log, saved) > saved
    # Told to end, both save at the same step and leave.
    for one in both:
        one.send_signal(signal.SIGTERM)
    assert [one.wait(DEADLINE) for one in both] == [75, 75], said(log, 0) + said(log, 1)
    assert "told to end; prompt/distilled: saved at step" in said(log, 0)
