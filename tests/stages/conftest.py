"""Tiny storefront runs, shared by the tests of this folder: every stage, a few steps each."""

import fcntl
import os
from contextlib import contextmanager

import jax
import pytest
from tiny_pretrained import (
    EXTRA_ROWS,
    FIRST,
    SEQUENCE,
    copy_beginning,
    watched_run,
    write_pretrained,
)
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


@contextmanager
def _shared(tmp_path_factory, name):
    """A folder that the workers of one pytest-xdist session share, held by one of them at a time; whether it is ready."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    ready = root / f"{name}.ready"
    with (root / f"{name}.lock").open("w") as lock, _quick_compiler():
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root / name, ready.exists()
        ready.touch()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The workdir of a finished tiny run."""
    with _shared(tmp_path_factory, "tiny_run") as (workdir, ready):
        if not ready:
            delrec("run", CONFIG, f"--workdir={workdir}", *TINY)
    return workdir


@pytest.fixture(scope="session")
def pretrained(tiny_run, tmp_path_factory):
    """The tiny run's language model as Hugging Face would store it, its table longer than its tokenizer."""
    with _shared(tmp_path_factory, "pretrained") as (directory, ready):
        if not ready:
            write_pretrained(tiny_run, directory, extra_rows=EXTRA_ROWS)
    return directory


@pytest.fixture(scope="session")
def first_run(tiny_run, pretrained, tmp_path_factory):
    """A finished run on pretrained weights with the verbaliser `first`."""
    with _shared(tmp_path_factory, "first_run") as (workdir, ready):
        if not ready:
            copy_beginning(tiny_run, workdir)
            watched_run(workdir, *FIRST, f"--config.lm.weights={pretrained}")
    return workdir


@pytest.fixture(scope="session")
def sequence_run(tiny_run, pretrained, tmp_path_factory):
    """A finished run on pretrained weights, layers scanned, with the verbaliser `sequence`."""
    with _shared(tmp_path_factory, "sequence_run") as (workdir, ready):
        if not ready:
            copy_beginning(tiny_run, workdir)
            watched_run(workdir, *SEQUENCE, f"--config.lm.weights={pretrained}")
    return workdir
