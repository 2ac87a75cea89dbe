"""Tiny networks, compiled without optimisation."""

import pytest
from shared_runs import quick_compiler


@pytest.fixture(autouse=True, scope="module")
def compile_quickly():
    """Tiny networks spend their time in the compiler: let it optimise nothing here."""
    with quick_compiler():
        yield
