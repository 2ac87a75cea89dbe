"""One thread for torch, a quick compiler where the models are large, and no look at these files where `-m` leaves them out.

Torch's threads spin while they wait, and next to any other process a test would take minutes.
"""

import jax
import pytest

try:
    import torch
except ImportError:
    pass
else:
    torch.set_num_threads(1)


def pytest_ignore_collect(config):
    """Without torch, each of these files skips itself as it is read: `make test` is to report no skip."""
    return True if "not parity" in config.option.markexpr else None


@pytest.fixture(scope="module")
def compile_quickly():
    """Most of the time would go to the compiler: let it optimise nothing."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
