"""Parts that the tests of this folder share."""

import jax
import pytest
from toy_family import BAG, Bag

pytest.register_assert_rewrite("seam_runs")  # its checks then say what they saw


@pytest.fixture
def toy_model():
    """A bag of twelve words, and its parameters."""
    model = Bag(12)
    return model, BAG.begin(model, jax.random.key(0))
