"""A tiny storefront run, shared by all tests that look at a finished workdir; and scripts on other devices."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings
from shared_runs import shared
from tiny_storefront import CONFIG, TINY, delrec

# No test depends on the speed of the machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


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

    With `count=None` the script says itself what it sees.
    """
    return _on_devices


def _on_devices(script, *arguments, count=8):
    flags = f"--xla_force_host_platform_device_count={count}"
    seen = {} if count is None else {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        env={**os.environ, **seen},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
