"""Tiny T5s of both kinds, compiled without optimisation."""

import pytest
from shared_runs import quick_compiler
from tiny_t5 import either, gated, v10

__all__ = ["either", "gated", "v10"]  # fixtures


@pytest.fixture(autouse=True, scope="module")
def compile_quickly():
    """Tiny models spend their time in the compiler: let it optimise nothing here."""
    with quick_compiler():
        yield
