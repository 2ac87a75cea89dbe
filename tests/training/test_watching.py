import io
import json
import re
import types

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from delrec_jax.errors import UserError
from delrec_jax.training import watching
from delrec_jax.training.tracking.trackers import Kind, Trackers
from delrec_jax.training.watching import TIMINGS, Watch, Watcher, peak_memory_gib


class Machine:
    """A clock and a device: steps are dispatched at once and computed one after the other."""

    def __init__(self):
        self.now = self.idle_at = 100.0

    def __call__(self):
        return self.now

    def step(self, seconds, loss=1.0):
        self.idle_at = max(self.idle_at, self.now) + seconds
        return {"loss": Pending(self, self.idle_at, loss)}


class Pending:
    """A number that is known at a time; who wants it earlier waits."""

    def __init__(self, machine, ready_at, value):
        self.machine, self.ready_at, self.value = machine, ready_at, value

    def block_until_ready(self):
        self.machine.now = max(self.machine.now, self.ready_at)
        return self

    def __float__(self):
        self.block_until_ready()
        return float(self.value)


class Lost:
    """A number that never comes: another process died."""

    def block_until_ready(self):
        raise AssertionError("waited for a device that will not answer")


def watch(directory, machine, *, name="prompt/distilled", total=600, start=0, rows=(), **more):
    wanted = more.pop("config", Watch())
    return Watcher(
        name,
        directory,
        total=total,
        start=start,
        rows=list(rows),
        watch=wanted,
        clock=machine,
        **more,
    )


def rates(row):
    return {name: row[name] for name in ("step_seconds", "examples_per_second") if name in row}


def compile_something(size):
    jax.jit(lambda x: x * size + 1)(jnp.ones(size)).block_until_ready()


def test_steps_are_timed_without_compiling_evaluating_and_saving(tmp_path):
    machine = Machine()
    with watch(tmp_path, machine, quiet=True) as watcher:
        with watcher.aside():
            machine.now += 70  # the evaluation of step 0
        watcher.record({"step": 0})
        machine.now += 30  # compiling
        watcher.step(1, machine.step(2.0), 8)
        for step in (2, 3, 4):
            watcher.step(step, machine.step(2.0), 8)
        with watcher.aside():
            machine.now += 50  # a checkpoint
        machine.now += 0.5  # the data are late
        watcher.step(5, machine.step(3.0), 4)
        with watcher.aside():
            machine.now += 100
            watcher.record({"step": 5})  # a record inside makes no difference
        watcher.step(6, machine.step(0.123456), 8)
        with watcher.aside(), watcher.aside():
            machine.now += 100
        watcher.record({"step": 6})
        watcher.step(9, machine.step(6.0), 24)  # three steps at once
        watcher.record({"step": 9})
    # Steps 2 to 5: 3 x 2 s, and 3.5 s; step 1 is not timed. Of 30 + 2 + 9.5 + 50 + 100 s, and of 100 s more than a step.
    assert [row.get("goodput") for row in watcher.rows] == [None, 0.04961, 0.001233, 1.0]
    assert [rates(row) for row in watcher.rows] == [
        {},
        {"step_seconds": 9.5 / 4, "examples_per_second": float(f"{28 / 9.5:.4g}")},
        {"step_seconds": 0.1235, "examples_per_second": 64.8},
        {"step_seconds": 2.0, "examples_per_second": 4.0},
    ]


def test_a_record_alone_waits_for_the_last_step(tmp_path):
    machine = Machine()
    with watch(tmp_path, machine, quiet=True) as watcher:
        for step in (1, 2, 3):
            watcher.step(step, machine.step(5.0), 10)
        watcher.record({"step": 3})
    assert rates(watcher.rows[-1]) == {"step_seconds": 5.0, "examples_per_second": 2.0}


def test_a_first_step_alone_is_not_timed(tmp_path):
    machine = Machine()
    with watch(tmp_path, machine, quiet=True) as watcher:
        watcher.step(1, machine.step(5.0), 10)
        watcher.record({"step": 1})
    assert rates(watcher.rows[-1]) == {}


@pytest.mark.parametrize("quiet", [True, False])
def test_a_stretch_with_a_compilation_is_left_out(tmp_path, quiet):
    machine = Machine()
    with watch(tmp_path, machine, quiet=quiet) as watcher:
        watcher.step(1, machine.step(1.0), 8)
        for step in (2, 3):
            watcher.step(step, machine.step(1.0), 8)
        machine.now += 0.5  # an earlier step is still computed when compiling starts
        compile_something(3 + quiet)
        machine.now += 60
        watcher.step(4, machine.step(9.0), 8)
        for step in (5, 6):
            watcher.step(step, machine.step(2.0), 8)
        watcher.record({"step": 6})
    assert rates(watcher.rows[-1]) == {"step_seconds": 2.0, "examples_per_second": 4.0}


def test_what_an_evaluation_compiles_spoils_no_step(tmp_path):
    machine = Machine()
    with watch(tmp_path, machine, quiet=True) as watcher:
        watcher.step(1, machine.step(1.0), 8)
        with watcher.aside():
            compile_something(5)
        watcher.step(2, machine.step(4.0), 8)
        watcher.record({"step": 2})
    assert rates(watcher.rows[-1]) == {"step_seconds": 4.0, "examples_per_second": 2.0}


def test_jax_keeps_no_listener_of_a_run_that_ended(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", kept.append)
    monkeypatch.setattr(jax.monitoring, "unregister_event_duration_listener", kept.remove)
    with pytest.raises(KeyError), watch(tmp_path, Machine(), quiet=True):
        assert len(kept) == 1
        raise KeyError
    assert kept == []


@pytest.mark.parametrize("quiet", [True, False])
def test_a_step_does_not_wait_for_the_device_before_the_display_is_due(tmp_path, quiet, capsys):
    machine = Machine()
    with watch(tmp_path, machine, total=9, quiet=quiet) as watcher:
        watcher.step(1, machine.step(1.0, loss=9), 8)
        assert machine.now == 101
        for step in (2, 3, 4):
            watcher.step(step, machine.step(4.0, loss=step), 8)
        assert machine.now == 101
        machine.now += 9
        watcher.step(5, machine.step(4.0, loss=5), 8)
        # The display waits for step 5, at 117; in a quiet process nothing does.
        assert machine.now == (110 if quiet else 117)
        watcher.step(6, machine.step(4.0, loss=6), 8)
        assert machine.now == (110 if quiet else 117)
    shown = "  prompt/distilled: step 5/9  loss 5.000  2 examples/s  0:00:16 left\n"
    assert capsys.readouterr().err == ("" if quiet else shown)


def run_to_the_display(watcher, machine):
    """Step 40 of 600 with a loss of 2.31, an evaluation before, 812 examples/s, 0.33929 s a step."""
    watcher.record({"run": "prompt/distilled", "step": 0, "valid/selection": 0.1, "valid/tau": 1.0})
    watcher.step(1, machine.step(1.0), 8)
    with watcher.aside():
        machine.now += 190 / 560 * 39 - 10
    row = {"run": "prompt/distilled", "step": 1, "loss": 1.0, "seconds": 3.5}
    watcher.record(row | {"valid/selection": 0.412, "valid/tau": -0.05})
    machine.now += 10
    watcher.step(40, machine.step(0.0, loss=2.31), 8120)


def test_the_line_of_a_run(tmp_path, capsys):
    machine = Machine()
    with watch(tmp_path, machine, monitor="valid/selection") as watcher:
        run_to_the_display(watcher, machine)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "  prompt/distilled: step 40/600  loss 2.310  valid/selection 0.412  812 examples/s  0:03:10 left"
    )


def test_without_a_monitor_the_whole_evaluation_is_shown(tmp_path, capsys):
    machine = Machine()
    with watch(tmp_path, machine) as watcher:
        run_to_the_display(watcher, machine)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "  prompt/distilled: step 40/600  loss 2.310  valid/selection 0.412  valid/tau -0.050  812 examples/s  0:03:10 left"
    )


def test_the_bar_of_a_run_shows_an_evaluation_when_it_is_recorded(tmp_path, capsys):
    machine = Machine()
    console = Console(
        file=io.StringIO(), force_terminal=True, width=160, _environ={"TERM": "xterm"}
    )
    with watch(tmp_path, machine, monitor="valid/selection", console=console) as watcher:
        run_to_the_display(watcher, machine)
        machine.now += 1
        watcher.record({"step": 40, "loss": 2.31, "valid/selection": 0.5})
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    for text in (
        "40/600 0:03:10 left loss 2.310  valid/selection 0.412  812 examples/s",
        "loss 2.310  valid/selection 0.500  812 examples/s",
    ):
        assert text in shown
    assert capsys.readouterr().err == ""


def test_a_run_that_goes_on_shows_the_evaluation_of_its_checkpoint(tmp_path, capsys):
    machine = Machine()
    rows = [{"step": 0, "gate": 0.1}, {"step": 20, "gate": 0.75}]
    with watch(tmp_path, machine, name="lm", start=25, total=40, rows=rows) as watcher:
        watcher.step(26, machine.step(1.0, loss=float("nan")), 8)
        machine.now += 10
        watcher.step(27, machine.step(1.0, loss=float("nan")), 8)
    # Step 27 took 10 + 1 s: 13 more take 143 s.
    assert capsys.readouterr().err == (
        "  lm: step 27/40  loss nan  gate 0.750  0.73 examples/s  0:02:23 left\n"
    )


def test_rows_on_disk_are_those_of_the_checkpoint_and_the_new_ones(tmp_path):
    machine = Machine()
    (tmp_path / "metrics.jsonl").write_text('{"step": 9}\n')
    with watch(tmp_path, machine, start=2, rows=[{"step": 0, "seconds": 0.0}]) as watcher:
        for step in (3, 4):
            watcher.step(step, machine.step(1.0), 8)
        watcher.record({"run": "lm", "step": 4, "loss": 1.5, "seconds": 2.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == watcher.rows
    first, last = watcher.rows
    assert first == {"step": 0, "seconds": 0.0}
    assert set(last) == {"run", "step", "loss"} | TIMINGS
    assert {k: v for k, v in last.items() if k not in TIMINGS} == {
        "run": "lm",
        "step": 4,
        "loss": 1.5,
    }


def test_a_quiet_process_collects_rows_and_writes_nothing(tmp_path, capsys):
    machine = Machine()
    config = Watch(profile="0:1")
    with watch(tmp_path, machine, rows=[{"step": 0}], config=config, quiet=True) as watcher:
        watcher.before_step(0)
        machine.now += 60
        watcher.step(1, machine.step(1.0), 8)
        watcher.record({"step": 1, "loss": 2.0})
    assert [row["step"] for row in watcher.rows] == [0, 1]
    assert not list(tmp_path.iterdir()) and capsys.readouterr() == ("", "")


def test_a_disk_error_comes_through(tmp_path):
    machine = Machine()
    watcher = watch(tmp_path, machine)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(IsADirectoryError), watcher:
        watcher.record({"step": 0})


def test_memory_of_the_fullest_device(monkeypatch):
    def device(stats):
        return types.SimpleNamespace(memory_stats=lambda: stats)

    devices = [
        device({"peak_bytes_in_use": gib << 30, "bytes_in_use": 9 << 30}) for gib in (3, 5, 4)
    ]
    monkeypatch.setattr(watching.jax, "local_devices", lambda: [*devices, device({}), device(None)])
    assert peak_memory_gib() == 5


def test_memory_of_the_process_where_the_backend_does_not_tell(monkeypatch):
    usage = types.SimpleNamespace(ru_maxrss=3 << 20)  # KiB on Linux, bytes on macOS
    monkeypatch.setattr(watching.resource, "getrusage", lambda who: usage)
    for platform, gib in (("linux", 3), ("darwin", 3 / 1024)):
        monkeypatch.setattr(watching.sys, "platform", platform)
        assert peak_memory_gib() == gib


def test_memory_of_this_very_process():
    assert 0.05 < peak_memory_gib() < 64


def test_a_wrong_profile_is_refused_with_the_config():
    with pytest.raises(UserError, match=r"config\.profile is '5': write START:STOP"):
        Watch(profile="5")


class Listening:
    """A tracker that remembers what it is told."""

    def __init__(self):
        self.told = []

    def start(self, training, directory, rows, identity):
        self.told.append((training, directory, list(rows), identity))

    def write(self, row):
        self.told.append(row)

    def end(self):
        self.told.append("end")

    def close(self, *, finished):
        pass


def test_rows_reach_the_trackers(tmp_path):
    heard, rows = Listening(), [{"step": 0, "gate": 0.5}]
    trackers = Trackers(kinds={"heard": Kind((), lambda *_: heard)})
    wanted = Watch(trackers=trackers)
    with trackers:
        with (
            pytest.raises(KeyError),
            watch(tmp_path, Machine(), rows=rows, config=wanted, identity={"seed": 1}) as watcher,
        ):
            watcher.record({"run": "lm", "step": 3, "loss": 2.0})
            raise KeyError
        with watch(tmp_path, Machine(), config=wanted, quiet=True) as watcher:
            watcher.record({"step": 1})
    begun = ("prompt/distilled", tmp_path, [{"step": 0, "gate": 0.5}], {"seed": 1})
    assert heard.told[0] == begun and heard.told[2:] == ["end"]
    assert heard.told[1] == {**heard.told[1], "run": "lm", "step": 3, "loss": 2.0}
    assert heard.told[1]["memory_gib"] > 0


def test_after_going_back_all_is_told_as_after_a_resume(tmp_path):
    heard = Listening()
    trackers = Trackers(kinds={"heard": Kind((), lambda *_: heard)})
    with trackers, watch(tmp_path, Machine(), config=Watch(trackers=trackers)) as watcher:
        for step in (0, 10, 20):
            watcher.record({"step": step})
        watcher.go_back(10, watcher.rows[:2])
        watcher.record({"step": 15})
    begun = [[row["step"] for row in told[2]] for told in heard.told if isinstance(told, tuple)]
    assert begun == [[], [0, 10]]
    others = [told for told in heard.told if not isinstance(told, tuple)]
    assert [told if told == "end" else told["step"] for told in others] == [
        0,
        10,
        20,
        "end",
        15,
        "end",
    ]
    assert [row["step"] for row in watcher.rows] == [0, 10, 15]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 10, 15]


def tiny_step(number, size):
    """Dispatches a computation that a trace shows as `number_<number>`."""

    def computation(x):
        return jax.lax.fori_loop(0, 40, lambda _, y: jnp.tanh(y @ x), x).sum()

    computation.__name__ = f"number_{number}"
    return jax.jit(computation), jnp.full((size, size), 1e-3)


def test_a_trace_holds_its_steps_whole_and_no_evaluation_before_them(tmp_path, capsys):
    steps = [tiny_step(n, 300) for n in range(6)]
    checks = [tiny_step(f"9_{n}", 50) for n in range(6)]
    for computation, x in steps + checks:
        computation(x).block_until_ready()  # compiled before, as after the first steps of a run
    with watch(tmp_path, Machine(), total=6, config=Watch(profile="2:4")) as watcher:
        for done, ((step, x), (check, y)) in enumerate(zip(steps, checks, strict=True)):
            watcher.before_step(done)
            watcher.step(done + 1, {"loss": step(x)}, 8)
            if done in (1, 3):
                with watcher.aside():
                    check(y).block_until_ready()
    [file] = (tmp_path / "trace").rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events]
    seen = {value for event in events for name, value in event.stats if name == "hlo_module"}
    # Step 1 is dispatched before but awaited; the evaluations after steps 1 and 3 are outside.
    assert seen == {"jit_number_2", "jit_number_3"}
    assert "a trace of steps 2:4 is in" in capsys.readouterr().err


def test_a_trace_begins_and_ends_on_an_idle_device_and_its_own_time_is_no_training(
    tmp_path, monkeypatch
):
    machine, calls = Machine(), []

    def takes_long(*directory):
        calls.append(machine.now)
        machine.now += 20

    monkeypatch.setattr(jax.profiler, "start_trace", takes_long)
    monkeypatch.setattr(jax.profiler, "stop_trace", takes_long)
    with watch(tmp_path, machine, total=9, config=Watch(profile="2:4")) as watcher:
        for done in range(5):
            watcher.before_step(done)
            watcher.step(done + 1, machine.step(1.0), 8)
        watcher.record({"step": 5})
    # The first step ends at 101, the second at 102; then 20 s, two steps, 20 s, one step.
    assert calls == [102, 124] and machine.now == 145
    assert rates(watcher.rows[-1]) == {"step_seconds": 1.0, "examples_per_second": 8.0}


def test_a_trace_ends_with_a_run_that_failed_without_waiting_for_the_device(tmp_path, capsys):
    with (
        pytest.raises(KeyError),
        watch(tmp_path, Machine(), config=Watch(profile="1:9")) as watcher,
    ):
        watcher.step(1, {}, 8)
        watcher.before_step(1)
        watcher.step(2, {"loss": Lost()}, 8)
        raise KeyError
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    assert "a trace of steps 1:2 is in" in capsys.readouterr().err


def test_a_trace_waits_for_the_last_step_of_a_run_that_ended_early(tmp_path):
    machine = Machine()
    with watch(tmp_path, machine, config=Watch(profile="1:9")) as watcher:
        watcher.step(1, {}, 8)
        watcher.before_step(1)
        watcher.step(2, machine.step(7.0), 8)
    assert machine.now == 107


def test_a_profile_beyond_the_end_is_told(tmp_path, capsys):
    with watch(tmp_path, Machine(), total=3, config=Watch(profile="7:9")) as watcher:
        for done in range(3):
            watcher.before_step(done)
            watcher.step(done + 1, {}, 8)
    assert "config.profile is 7:9, and training ended at step 3" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()
