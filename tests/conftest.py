"""A tiny storefront run, shared by all tests that look at a finished workdir; and scripts on other devices."""

import gc
import json
import os
import subprocess
import sys

import jax
import pytest
from compiling import QUICK_ENVIRONMENT, open_cache, quick_compiler, usual_compiler
from hypothesis import HealthCheck, settings
from shared_runs import shared
from tiny_storefront import CONFIG, TINY, delrec

# No test depends on the speed of the machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

_QUICK_BEFORE = pytest.StashKey[bool]()


def pytest_addoption(parser):
    """For held-out damage: `pytest -m slow tests/fuzz --fuzz-seed=7 --fuzz-cases=2000`."""
    group = parser.getgroup("damaged inputs (tests/fuzz)")
    group.addoption("--fuzz-seed", type=int, default=0, help="from which cases are made")
    group.addoption(
        "--fuzz-cases", type=int, default=0, help="cases of each kind; 0 = as many as usual"
    )
    group.addoption("--fuzz-tally", default="", help="a JSON file that outcomes are counted in")


def pytest_configure(config):
    open_cache(config)
    # Programs and their traces are millions of objects that stay: to look through them less often saves a tenth of the time.
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def compile_as_marked(request):
    """Quickly, or as users do where the module is marked `exact` or `parity`."""
    exact = any(map(request.node.get_closest_marker, ("exact", "parity")))
    if exact and request.config.stash.get(_QUICK_BEFORE, True):
        jax.clear_caches()  # what other modules compiled quickly is not used here
    request.config.stash[_QUICK_BEFORE] = not exact
    with usual_compiler() if exact else quick_compiler():
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The workdir of a finished tiny run."""
    with shared(tmp_path_factory, "tiny_run") as (workdir, ready):
        if not ready:
            delrec("run", CONFIG, f"--workdir={workdir}", *TINY)
    return workdir


@pytest.fixture(scope="session")
def on_devices():
    """(script, *arguments, count=8) -> the JSON that it prints last, in a process of its own that sees so many devices.

    With `count=None` the script says itself what it sees; with `quick=False` it compiles as users do.
    """
    return _on_devices


def _on_devices(script, *arguments, count=8, quick=True):
    level = QUICK_ENVIRONMENT if quick else {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    seen = "" if count is None else f" --xla_force_host_platform_device_count={count}"
    run = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        env={**os.environ, **level, "XLA_FLAGS": level["XLA_FLAGS"] + seen},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
