"""A clock that is set back again and again changes nothing: neither what is trained, nor which checkpoint is the latest."""

import itertools
import time

import pytest
from test_loop import Killed, make_run, rows

from delrec_jax.training.loop import fit

pytestmark = pytest.mark.exact


def test_a_clock_that_is_set_back(tmp_path, monkeypatch):
    _, whole = fit(make_run(tmp_path / "whole"))
    now, looks = time.time(), itertools.count()
    # Each look at the time of day is an hour before the last one; durations come from another clock.
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(looks))
    monkeypatch.setattr(time, "time_ns", lambda: int((now - 3600 * next(looks)) * 1e9))
    for left in (5, 3):
        with pytest.raises(Killed):
            fit(make_run(tmp_path / "killed", kill_after=left))
    _, meta = fit(make_run(tmp_path / "killed"))
    assert next(looks) > 20, "hardly anybody looked"
    assert meta == whole
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    ours, theirs = (tmp_path / name / "result.safetensors" for name in ("killed", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()
