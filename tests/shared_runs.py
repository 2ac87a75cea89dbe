"""Runs that take long to make are made once a session, by one worker of pytest-xdist, for all."""

import fcntl
import os
from contextlib import contextmanager

from compiling import quick_compiler


@contextmanager
def shared(tmp_path_factory, name):
    """A folder that the workers of one session share, held by one of them at a time; whether it is ready."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    ready = root / f"{name}.ready"
    with (root / f"{name}.lock").open("w") as lock, quick_compiler():
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root / name, ready.exists()
        ready.touch()
