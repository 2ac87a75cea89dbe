"""What tests of training loops share."""

import signal

import pytest

from delrec_jax.training.preemption import end_at_sigterm


@pytest.fixture
def orderly_end():
    """SIGTERM ends a run in order, as in a process of `delrec`."""
    before = signal.getsignal(signal.SIGTERM)
    end_at_sigterm()
    yield
    signal.signal(signal.SIGTERM, before)
