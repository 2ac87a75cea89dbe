"""`loop.max_seconds` limits a training, however often it is interrupted."""

from types import SimpleNamespace

import pytest
from numbered import Killed, Numbered, train

from delrec_jax.training import loop

LIMIT = {"steps": 30, "checkpoint_every": 2, "max_seconds": 10.0}


@pytest.fixture
def clock(monkeypatch):
    """Stands still while no batch is drawn."""
    found = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


class Timed(Numbered):
    """Each batch takes a second."""

    def __init__(self, clock, **more):
        super().__init__(**more)
        self.clock = clock

    def __next__(self):
        found = super().__next__()
        self.clock.now += 1
        return found


def test_a_training_that_is_started_again_has_the_seconds_that_were_left(tmp_path, clock):
    def die():
        raise Killed

    _, whole = train(tmp_path / "whole", Timed(clock), config=LIMIT)
    assert whole["steps"] == 10
    with pytest.raises(Killed):
        train(tmp_path / "cut", Timed(clock, at=7, happens=die), config=LIMIT)
    clock.now += 1000  # nothing ran
    _, resumed = train(tmp_path / "cut", Timed(clock), config=LIMIT)
    assert resumed["steps"] == 10
