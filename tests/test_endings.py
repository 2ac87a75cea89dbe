"""Errors that are no bugs end a command with one line; bugs keep their traceback."""

import errno
import os
import sys

import pytest

from delrec_jax.endings import reported

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
