"""Processes that are stopped (SIGSTOP): one alone loses nothing, and one of two does not keep the other waiting forever."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from compiling import QUICK_ENVIRONMENT

pytestmark = pytest.mark.slow

DEADLINE = 900
HANG_AFTER = 30


def begin(directory, *meeting):
    """A training in a process of its own, that says what it has to say in a file."""
    said = directory.with_suffix(f".{''.join(meeting[1:])}said")
    return subprocess.Popen(
        [
            sys.executable,
            Path(__file__).with_name("stoppable.py"),
            directory,
            str(HANG_AFTER),
            *meeting,
        ],
        env={**os.environ, **QUICK_ENVIRONMENT},
        stderr=said.open("w"),
    ), said


def rows(directory):
    log = directory / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for_rows(directory, more, alive):
    """Until there are more rows in the log; all of `alive` must go on meanwhile."""
    ends = time.monotonic() + DEADLINE
    while rows(directory) <= more:
        assert all(one.poll() is None for one in alive), f"ended with {rows(directory)} rows"
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_of_two_processes_the_one_that_waits_for_a_stopped_one_ends(tmp_path):
    directory = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (first, said), (second, _) = (begin(directory, port, str(number)) for number in range(2))
    try:
        wait_for_rows(directory, 3, (first, second))
        second.send_signal(signal.SIGSTOP)
        assert first.wait(DEADLINE) == 70, said.read_text()
    finally:
        for one in (first, second):
            one.kill()
    last = said.read_text().strip().splitlines()[-1]
    assert last.startswith("delrec: tiny/endless: ") and " hangs at step " in last
    assert "(or another process does not take part)" in last and "resumes" in last
    assert "Thread" in (directory / "hang-0.txt").read_text()


def test_a_run_that_was_stopped_for_longer_than_the_limit_goes_on(tmp_path):
    directory = tmp_path / "run"
    run, said = begin(directory)
    try:
        wait_for_rows(directory, 3, [run])
        run.send_signal(signal.SIGSTOP)
        time.sleep(3 * HANG_AFTER)
        run.send_signal(signal.SIGCONT)
        wait_for_rows(directory, rows(directory) + 3, [run])
        run.send_signal(signal.SIGTERM)
        assert run.wait(DEADLINE) == 75, said.read_text()
    finally:
        run.kill()
