"""Which jobs a study starts and when, what follows from one that failed, with processes that only say how they ended."""

from types import SimpleNamespace
from unittest import mock

import pytest

from delrec_jax.studies import processes, scheduling
from delrec_jax.studies.journal import seconds_left
from delrec_jax.studies.scheduling import Schedule
from delrec_jax.studies.sharing import Job
from delrec_jax.studies.worker import BUSY


def job(name, *needs):
    """A job of a run of its own."""
    return Job(SimpleNamespace(name=name), ("prepare",), (name,), (name,), frozenset(needs))


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """(jobs, statuses by run, one per try; runs that another process has finished) -> the schedule, and what was started."""

    def execute(jobs, ended, *, at_once=2, there=(), changed=()):
        started, left = [], {name: list(statuses) for name, statuses in ended.items()}

        def start(root, one, **slots):
            running = {process.name for process in processes_of if process.open}
            assert len(running) < at_once
            started.append(one.run.name)
            process = mock.Mock(open=True)
            process.name = one.run.name

            def poll():
                process.open = False
                return left[one.run.name].pop(0)

            process.poll = poll
            processes_of.append(process)
            return process

        processes_of = []
        workdirs = {}
        for one in jobs:
            ws = mock.Mock(root=tmp_path / one.run.name)
            ws.name = one.run.name
            ws.finished.side_effect = lambda stage, name=one.run.name: name in there
            workdirs[one.run.name] = ws
        monkeypatch.setattr(processes, "start", start)
        monkeypatch.setattr(processes, "end", lambda running: None)
        monkeypatch.setattr(processes, "last_words", lambda root, one, status: f"status {status}")
        monkeypatch.setattr(scheduling, "lock_places", lambda ws, stages: ())
        monkeypatch.setattr(scheduling, "sources_changed", lambda ws, stage: ws.name in changed)
        monkeypatch.setattr(scheduling, "_LOOKS", 0.0)
        schedule = Schedule(tmp_path, jobs, workdirs)
        schedule.execute(at_once)
        return schedule, started

    return execute


def test_a_job_is_started_after_those_that_it_needs(executed):
    jobs = [job("a"), job("b", "a"), job("c", "b"), job("d")]
    schedule, started = executed(jobs, dict.fromkeys("abcd", (0,)))
    assert sorted(started) == list("abcd") and not schedule.failed
    assert started.index("a") < started.index("b") < started.index("c")


def test_what_needs_a_failed_job_is_not_waited_for(executed):
    jobs = [job("a"), job("b", "a"), job("c", "b"), job("d")]
    schedule, started = executed(jobs, {"a": (1,), "d": (0,)})
    assert sorted(started) == ["a", "d"] and schedule.open == []
    assert schedule.failed == {
        "a: prepare": "status 1",
        "b: prepare": "needs a: prepare, which failed",
        "c: prepare": "needs a: prepare, which failed",
    }


def test_a_job_that_another_process_holds_is_tried_again(executed):
    schedule, started = executed([job("a"), job("b", "a")], {"a": (BUSY, BUSY, 0), "b": (0,)})
    assert started == ["a", "a", "a", "b"] and not schedule.failed


def test_what_is_finished_is_not_started_unless_its_source_has_changed(executed):
    jobs, ended = [job("a"), job("b", "a")], {"a": (0,), "b": (0,)}
    assert executed(jobs, ended, there=("a",))[1] == ["b"]
    assert executed(jobs, ended, there=("a", "b"))[1] == []
    assert executed([job("a")], ended, there=(), changed=("a",))[1] == ["a"]


def test_a_finished_job_of_other_sources_is_made_again(executed, monkeypatch):
    jobs = [job("a")]
    with pytest.raises(IndexError):  # it is started: nothing says how it ends
        executed(jobs, {"a": ()}, there=("a",), changed=("a",))


def test_the_time_left_is_that_of_the_stages_over_the_processes():
    lines = [{"stage": "teach", "seconds": 2.0}, {"stage": "teach", "seconds": 4.0}]
    assert seconds_left(lines, ["teach", "teach"], 1) == 6.0
    assert seconds_left(lines, ["teach", "teach"], 2) == 3.0
    assert seconds_left(lines, ["teach", "tune"], 2) is None
