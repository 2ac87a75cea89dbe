"""One tiny storefront run, shared by the tests of this folder: every stage, a few steps each."""

import fcntl
import os
from contextlib import contextmanager

import jax
import pytest
from tiny_storefront import CONFIG, TINY, delrec


@contextmanager
def _quick_compiler():
    """Tiny models spend their time in the compiler: let it optimise nothing."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True, scope="module")
def compile_quickly():
    with _quick_compiler():
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The workdir of a finished tiny run; the workers of one pytest-xdist session share it."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    workdir = root / "tiny_run"
    with (root / "tiny_run.lock").open("w") as lock, _quick_compiler():
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (workdir / "report" / "index.html").exists():
            delrec("run", CONFIG, f"--workdir={workdir}", *TINY)
    return workdir
