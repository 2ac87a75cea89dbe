"""What can go wrong around a run, done to the real command: the message says what to do, and nothing that was done is lost."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import pytest
from compiling import QUICK_ENVIRONMENT
from safetensors.numpy import load_file
from tiny_storefront import CONFIG, TINY, delrec

from delrec_jax.training.watching import TIMINGS

DEADLINE = 240  # seconds for one command, on a busy machine
ENDLESS = ("--config.teacher.loop.steps=1000000", "--config.teacher.loop.checkpoint_every=1000000")


@pytest.fixture
def prepared(tiny_run, tmp_path):
    """A workdir in which `prepare` is done and nothing else."""
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run / "data", workdir / "data")
    return workdir


def command(workdir, *flags):
    console = Path(sys.executable).with_name("delrec")
    return [console, "teach", CONFIG, f"--workdir={workdir}", *TINY, *flags]


def environment():
    return {**os.environ, **QUICK_ENVIRONMENT}


def run(workdir, *flags, limit="unlimited"):
    """The command in a process of its own; `limit`: no file may have more kilobytes."""
    return subprocess.run(
        ["bash", "-c", f'ulimit -f {limit}; exec "$0" "$@"', *command(workdir, *flags)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def steps(workdir):
    """Of the whole checkpoints of the teacher."""
    folder = workdir / "teacher" / "model" / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def told_to_end(workdir, wait_for):
    """Starts an endless training, sends SIGTERM when `wait_for()` holds; its exit status and what it said."""
    process = subprocess.Popen(
        command(workdir, *ENDLESS), env=environment(), stderr=subprocess.PIPE, text=True
    )
    ends = time.monotonic() + DEADLINE
    while not wait_for():
        assert process.poll() is None and time.monotonic() < ends
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=DEADLINE)
    return process.returncode, said


def test_sigterm_saves_and_the_same_command_goes_on(prepared):
    log = prepared / "teacher" / "model" / "metrics.jsonl"

    def lines():
        return len(log.read_text().splitlines()) if log.exists() else 0

    status, said = told_to_end(prepared, lambda: lines() > 3)
    assert status == 75, said
    assert "told to end; teacher: saved at step" in said and "Traceback" not in said
    first = steps(prepared)[-1]
    assert f"saved at step {first} of 1000000" in said
    before = lines()
    status, said = told_to_end(prepared, lambda: lines() > before + 1)
    assert status == 75, said
    assert steps(prepared)[-1] > first
    assert [line.split('"step": ')[1].split(",")[0] for line in log.read_text().splitlines()] == [
        str(4 * place) for place in range(lines())
    ]


def rows(workdir):
    lines = (workdir / "teacher" / "model" / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


@pytest.mark.slow
def test_a_run_that_is_stopped_for_a_minute_and_continued(prepared, tmp_path):
    """As `kill -STOP`, Ctrl-Z, a debugger or the suspension of a virtual machine do."""
    flags = ("--config.teacher.loop.steps=400", "--config.teacher.loop.checkpoint_every=10")
    undisturbed = shutil.copytree(prepared, tmp_path / "undisturbed")
    whole = run(undisturbed, *flags)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        command(prepared, *flags), env=environment(), stderr=subprocess.PIPE, text=True
    )
    ends = time.monotonic() + DEADLINE
    while not steps(prepared):
        assert process.poll() is None and time.monotonic() < ends
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    assert os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT).si_status == signal.SIGSTOP
    time.sleep(60)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    assert rows(prepared) == rows(undisturbed)
    ours, theirs = (place / "teacher/model/result.safetensors" for place in (prepared, undisturbed))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_disk_that_takes_no_more(prepared):
    full = run(prepared, limit=16)
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith("delrec: ") and str(prepared) in last
    assert "start the same command again" in last
    freed = run(prepared)
    assert freed.returncode == 0, freed.stderr
    assert (prepared / "teacher" / "model" / "result.safetensors").exists()


def test_a_place_that_cannot_be_written():
    found = run(Path("/proc/delrec"))
    assert found.returncode == 2
    assert "--workdir=/proc/delrec: cannot be used" in found.stderr
    assert "give a folder that you can write to" in found.stderr and "Traceback" not in found.stderr


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(prepared):
    flags = (
        "--config.teacher.loop.steps=400",
        "--config.teacher.optimizer.learning_rate=1e30",
        "--config.teacher.optimizer.clip=0.0",
        "--config.teacher.optimizer.warmup_steps=0",
    )
    found = run(prepared, *flags)
    assert found.returncode == 2
    # Step 1 makes the parameters huge, and step 2 makes something of them that is not finite.
    assert re.search(r"teacher: the \S.* is not finite at step [12], the first", found.stderr)
    assert "teacher/model/checkpoints/0. Lower" in found.stderr
    assert "Traceback" not in found.stderr
    last = (prepared / "teacher" / "model" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["step"] == 4
    assert steps(prepared) == [0]


def test_watching_for_spikes_changes_no_training_without_one(prepared, tiny_run, capsys):
    spikes = ("--config.teacher.loop.on_spike=rollback", "--config.teacher.loop.spike.least=4")
    delrec("teach", CONFIG, f"--workdir={prepared}", *TINY, *spikes, "--update")
    for name in ("teacher/model/result.json", "teacher/model/metrics.jsonl"):
        assert "rollbacks" in (prepared / name).read_text()
        assert "rollbacks" not in (tiny_run / name).read_text()
    ours, theirs = (
        load_file(place / "teacher" / "model" / "result.safetensors")
        for place in (prepared, tiny_run)
    )
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-5)


def test_two_runs_in_one_workdir(prepared, capsys):
    with (prepared / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 4711 on elsewhere since 2026-01-01\n")
        held.flush()
        with pytest.raises(SystemExit) as ended:
            delrec("teach", CONFIG, f"--workdir={prepared}", *TINY)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "another run is using it (process 4711 on elsewhere since 2026-01-01)" in said
    assert not (prepared / "teacher").exists()
    delrec("teach", CONFIG, f"--workdir={prepared}", *TINY)
    assert (prepared / "teacher" / "teacher.json").exists()


def test_a_run_may_go_on_under_another_mesh_and_not_under_another_config(prepared, capsys):
    delrec("teach", CONFIG, f"--workdir={prepared}", *TINY)
    delrec(
        "teach",
        CONFIG,
        f"--workdir={prepared}",
        *TINY,
        "--config.mesh.data=1",
        "--config.teacher.steps_per_call=4",
        "--config.profile=1:2",
    )
    assert "teach: finished before, skipped" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        delrec("teach", CONFIG, f"--workdir={prepared}", *TINY, "--config.teacher.batch_size=7")
    assert "teacher.batch_size" in capsys.readouterr().err


def test_what_a_pod_left_is_read_on_a_laptop(tiny_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir, ignore=shutil.ignore_patterns("checkpoints"))
    settings = json.loads((workdir / "config.json").read_text())
    settings["mesh"].update(data=1, fsdp=16)
    settings["distributed"].update(coordinator="pod-0:1234", num_processes=4, process_id=3)
    (workdir / "config.json").write_text(json.dumps(settings))
    delrec("report", f"--workdir={workdir}")
    assert "report: done" in capsys.readouterr().err
