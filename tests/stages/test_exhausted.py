"""Too little memory is told in one line, with the settings that need less of it."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.config import Experiment
from delrec_jax.endings import reported
from delrec_jax.errors import UserError, out_of_memory
from delrec_jax.stages.out_of_memory import batch_sizes, memory_told
from delrec_jax.workdir.stage_table import STAGES

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "out_of_memory.py"
TOO_MANY = 1 << 50
EXHAUSTED = {
    "numpy": lambda: np.zeros(TOO_MANY),
    "jax": lambda: jnp.zeros((TOO_MANY,)),
    "compiled": lambda: jax.jit(lambda x: x + jnp.zeros((TOO_MANY,)))(1.0),
}
SIZES = {
    "prepare": [],
    "pretrain": ["config.pretrain.text.batch_tokens (4096)"],
    "teach": ["config.teacher.batch_size (32)"],
    "distill": ["config.distill.batch_size (64)"],
    "tune": ["config.tune.batch_size (64)"],
    "parse": ["config.parse.batch_size (32)"],
    "augment": ["config.augment.batch_size (256)"],
    "evaluate": ["config.evaluate.batch_size (128)"],
}


@pytest.mark.parametrize("stage", SIZES)
def test_what_a_stage_has_in_memory_at_once_is_found_in_its_settings(stage):
    assert batch_sizes(STAGES["delrec_p2rec"][stage], Experiment()) == SIZES[stage]


@pytest.mark.parametrize("how", EXHAUSTED)
def test_the_stage_and_its_batch_size_are_named(how):
    stage, experiment = STAGES["delrec"]["tune"], Experiment()
    with pytest.raises(UserError) as told, memory_told("tune", stage, experiment):
        EXHAUSTED[how]()
    said = str(told.value)
    (size,) = batch_sizes(stage, experiment)
    assert said.startswith("tune: out of memory (") and "llocat" in said
    assert f"smaller {size}" in said and "the same command resumes" in said


def test_other_errors_are_left_alone():
    full = ValueError("RESOURCE_EXHAUSTED: fallocate: No space left on device")
    with (
        pytest.raises(ValueError, match="fallocate"),
        memory_told("tune", STAGES["delrec"]["tune"], Experiment()),
    ):
        raise full
    assert not out_of_memory(full)


@pytest.mark.parametrize("how", EXHAUSTED)
def test_commands_that_run_no_stage_tell_it_too(how, capsys):
    with pytest.raises(SystemExit) as ended, reported():
        EXHAUSTED[how]()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("delrec: out of memory (") and "larger machine" in line


@pytest.mark.slow
def test_runs_that_the_system_kills_for_want_of_memory_are_finished_by_the_same_command():
    groups = Path("/sys/fs/cgroup")
    groups = groups / "memory" if (groups / "memory").is_dir() else groups
    if not os.access(groups, os.W_OK):
        pytest.skip("no right to make control groups")
    done = subprocess.run([sys.executable, BENCHMARK, "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'killed': " in done.stdout and done.stdout.count(" 0 different") == 2
