"""A tiny storefront run, shared by all tests that look at a finished workdir."""

import pytest
from shared_runs import shared
from tiny_storefront import CONFIG, TINY, delrec


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The workdir of a finished tiny run."""
    with shared(tmp_path_factory, "tiny_run") as (workdir, ready):
        if not ready:
            delrec("run", CONFIG, f"--workdir={workdir}", *TINY)
    return workdir
