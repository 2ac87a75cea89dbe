"""Selection that reads many times what training reads is told."""

import pytest

from delrec_jax.training import selection_cost
from delrec_jax.training.loop_config import LoopConfig


@pytest.mark.parametrize(
    ("texts", "steps", "told"), [(640, 9, False), (641, 9, True), (10_000, 0, False)]
)
def test_a_selection_that_costs_more_than_training_is_told(texts, steps, told, monkeypatch):
    said = []
    monkeypatch.setattr(selection_cost, "say", said.append)
    loop = LoopConfig(steps=steps, evaluate_every=4)
    selection_cost.warn_of_costly_selection("it", texts, batch_size=16, loop=loop, remedy="KEY")
    assert len(said) == told
    assert all("641 texts, read again after every 64" in line and "KEY" in line for line in said)
