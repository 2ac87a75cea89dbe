"""Errors that are no bugs end a command with one line; bugs keep their traceback."""

import errno
import os
import subprocess
import sys

import pytest

from delrec_jax.endings import reported
from delrec_jax.files import write_text

FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, FULL, "a file"),
        OSError(errno.EROFS, os.strerror(errno.EROFS), "a file"),
        RuntimeError(f'Failed to finalize "histories": write() failed: {FULL}; writing\na file'),
        ValueError(f"RESOURCE_EXHAUSTED: Error writing: {FULL} [OS error 28: ENOSPC]: a file"),
    ],
)
def test_a_full_disk_is_told_in_one_line_whichever_library_found_it(error, capsys):
    with pytest.raises(SystemExit) as ended, reported():
        raise error
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("delrec: ") and "a file" in line and "make room" in line


def test_what_other_threads_say_to_an_event_loop_that_is_gone_is_not_printed(capsys):
    before = sys.excepthook
    with pytest.raises(SystemExit), reported():
        for said in ("Event loop is closed", "another one"):
            sys.excepthook(RuntimeError, RuntimeError(said), None)  # as PyErr_Print calls it
        raise OSError(errno.ENOSPC, FULL, "a file")
    assert sys.excepthook is before
    traceback, line = capsys.readouterr().err.splitlines()
    assert traceback == "RuntimeError: another one" and line.startswith("delrec: ")


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "gone"), RuntimeError("a bug")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)), reported():
        raise error


def test_whoever_reads_may_stop_reading():
    """`delrec --help | true`: no traceback, neither at once nor when the process ends."""
    command = f'"{sys.executable}" -m delrec_jax.cli --help | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == "" and done.returncode in (
        0,
        141,
    )  # it may have written everything before


def test_letters_that_the_terminal_has_not_are_written_as_codes():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from delrec_jax import cli; cli.USAGE = '\u2013 \u00b1'; cli.main(['--help'])",
        ],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout == "\\u2013 \\xb1\n", done.stderr


def test_a_file_in_place_of_a_folder_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit), reported():
        write_text(tmp_path / "file" / "x.json", "{}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("delrec: ") and str(tmp_path / "file") in line


LOST = """
import gc, os, signal, time
from delrec_jax.endings import reported
from delrec_jax.errors import Preempted

def tell(number, frame):
    raise Preempted("a stage")

def callback(phase, info):
    if told:
        os.kill(os.getpid(), told.pop())
        for _ in range(1000):
            pass

signal.signal(signal.SIGTERM, tell)
told = [signal.{name}]
gc.callbacks.append(callback)
with reported(process=True):
    gc.collect()
    time.sleep(60)
    print("went on")
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 75)])
def test_a_notice_that_python_discards_is_told_again(name, status):
    """What is raised in a callback of the garbage collector, of which JAX has one, would be printed and forgotten."""
    command = [sys.executable, "-c", LOST.replace("{name}", name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("delrec: ") and "same command resumes" in line


IMPORTING = """
import sys, types
from delrec_jax.endings import reported

sys.modules["jax"] = types.ModuleType("jax")  # half of it
sys.modules["delrec_jax.distributed"] = types.ModuleType("delrec_jax.distributed")
with reported():
    raise KeyboardInterrupt
"""


def test_an_interruption_while_libraries_are_loaded_is_one_line():
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True)
    assert done.returncode == 130 and len(done.stderr.splitlines()) == 1, done.stderr
