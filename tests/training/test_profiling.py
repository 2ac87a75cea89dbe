import jax
import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.training.profiling import StepTrace, parse_span


def run_named(name):
    """Compiles and runs a computation that a trace shows under this name."""

    def computation(x):
        return (x @ x).sum()

    computation.__name__ = name
    jax.jit(computation)(np.ones((64, 64), np.float32)).block_until_ready()


def traced(directory):
    """The computations that the only trace below a directory saw the device run."""
    [file] = directory.rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events]
    return {value for event in events for name, value in event.stats if name == "hlo_module"}


@pytest.mark.parametrize(
    "text, span", [("", None), ("0:1", (0, 1)), ("10:15", (10, 15)), ("9:10", (9, 10))]
)
def test_spans(text, span):
    assert parse_span(text) == span


@pytest.mark.parametrize(
    "text",
    [
        "5",
        ":",
        "5:",
        ":5",
        "5:5",
        "6:5",
        "10:9",
        "-1:5",
        "1:2:3",
        "a:b",
        "1.0:2",
        " 1:2",
        "²:5",
        "١:٢",
    ],
)
def test_wrong_spans_name_key_value_and_form(text):
    with pytest.raises(UserError) as caught:
        parse_span(text)
    assert str(caught.value).startswith(f"config.profile is {text!r}: write START:STOP")


def test_a_trace_holds_what_ran_between_start_and_stop(tmp_path, capsys):
    trace = StepTrace("lm", tmp_path / "trace", (2, 4), 0)
    for done in range(6):
        if trace.starts(done):
            trace.start(done)
        run_named(f"number_{done}")
        if trace.stops(done + 1):
            trace.stop(done + 1)
    trace.close(6, failed=False)
    assert traced(tmp_path / "trace") == {"jit_number_2", "jit_number_3"}
    assert capsys.readouterr().err == (
        f"  lm: a trace of steps 2:4 is in {tmp_path / 'trace'} (XProf and TensorBoard show it)\n"
    )


@pytest.mark.parametrize("failed", [True, False])
def test_a_trace_that_still_runs_at_the_end_is_written(tmp_path, capsys, failed):
    trace = StepTrace("lm", tmp_path, (2, 9), 0)
    run_named("the_step_before")
    trace.start(2)
    run_named("the_last_step")
    trace.close(3, failed=failed)
    assert traced(tmp_path) == {"jit_the_last_step"}
    assert "a trace of steps 2:3 is in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "done, starts",
    [
        (0, [10, 11, 12, 13, 14]),
        (10, [10, 11, 12, 13, 14]),
        (12, [12, 13, 14]),
        (14, [14]),
        (15, []),
        (99, []),
    ],
)
def test_a_run_that_goes_on_traces_what_is_left(tmp_path, capsys, done, starts):
    trace = StepTrace("lm", tmp_path, (10, 15), done)
    assert [at for at in range(done, 120) if trace.starts(at)] == starts
    assert not any(trace.stops(at) for at in range(120))  # nothing runs
    trace.close(120, failed=not (done >= 15))
    assert capsys.readouterr().err == ""


def test_each_run_is_traced_once(tmp_path):
    trace = StepTrace("lm", tmp_path, (0, 5), 0)
    trace.start(0)
    assert not trace.starts(1) and trace.stops(5) and not trace.stops(4)
    trace.stop(5)
    assert not trace.starts(1) and not trace.stops(5)


def test_a_start_beyond_the_end_is_told_but_not_after_a_failure(tmp_path, capsys):
    StepTrace("lm", tmp_path, (700, 710), 0).close(600, failed=True)
    assert capsys.readouterr().err == ""
    StepTrace("lm", tmp_path, (700, 710), 0).close(600, failed=False)
    assert capsys.readouterr().err == (
        "  lm: nothing was traced: config.profile is 700:710, and training ended at step 600\n"
    )
    assert not list(tmp_path.iterdir())


def test_training_outlives_a_trace_that_cannot_start(tmp_path, capsys):
    with jax.profiler.trace(tmp_path / "another"):
        trace = StepTrace("lm", tmp_path / "mine", (0, 2), 0)
        trace.start(0)
        assert not trace.starts(1) and not trace.stops(2)
        trace.close(2, failed=False)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("  WARNING: lm: no trace: ") and "already" in line


def test_training_outlives_a_trace_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    def full():
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(jax.profiler, "start_trace", lambda directory: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", full)
    trace = StepTrace("lm", tmp_path, (0, 2), 0)
    trace.start(0)
    trace.stop(2)
    trace.close(2, failed=False)
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        f"  WARNING: lm: the trace was not written to {tmp_path}: No space left on device"
    )
