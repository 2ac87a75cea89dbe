"""The protocol of trackers: order, resuming, failures, several at once; with trackers that only remember."""

import json
import sys
import types

import pytest

from delrec_jax.config import Experiment
from delrec_jax.errors import UserError
from delrec_jax.training.tracking import trackers as module
from delrec_jax.training.tracking.remote import RemoteTracker
from delrec_jax.training.tracking.trackers import KINDS, Kind, Trackers, tracker_names

SETTINGS = {"seed": 0, "tune.loop.steps": 9}


class Server:
    """Keeps runs, and fails when it is told to."""

    def __init__(self):
        self.runs, self.away, self.opens = {}, "", Remote

    def open(self, opening):
        self.check("open")
        run_id = opening.id or f"run-{len(self.runs)}"
        if opening.id and opening.id not in self.runs:
            raise KeyError(f"no run {opening.id}")
        settings = dict(opening.settings)
        self.runs.setdefault(run_id, {"name": opening.name, "settings": settings, "log": []})
        return self.opens(self, run_id)

    def check(self, what):
        if self.away == what:
            raise ConnectionError("the server\nis away")

    def steps(self, run_id, training):
        return [step for name, step, _ in self.runs[run_id]["log"] if name == training]


class Remote:
    def __init__(self, server, run_id):
        self.server, self.id = server, run_id

    def log(self, training, step, values, *, number):
        self.server.check("log")
        run = self.server.runs[self.id]
        assert number > run.get("number", -1)
        run["number"] = number
        run["log"].append((training, step, dict(values)))

    def results(self, values, *, number):
        self.server.runs[self.id].setdefault("results", []).append((number, dict(values)))

    def close(self, *, finished):
        self.server.runs[self.id]["finished"] = finished


@pytest.fixture
def server():
    return Server()


def remote(server, settings=SETTINGS, **others):
    """(root) -> trackers: one that is kept by the server, and others."""

    def make(root):
        def kind(root, settings):
            return RemoteTracker("fake", server.open, root, settings)

        return Trackers(root=root, settings=settings, kinds={"fake": Kind((), kind), **others})

    return make


def row(step, **values):
    return {"run": "teacher", "step": step, "loss": 1.0 / (1 + step), **values}


def train(trackers, root, steps, *, rows=(), name="teacher", identity=None):
    with trackers.training(name, root / name, list(rows), identity or {"seed": 0}) as tell:
        for step in steps:
            tell(row(step))


def test_rows_arrive_in_order_with_the_numbers_alone(tmp_path, server):
    with remote(server)(tmp_path / "shop") as trackers:
        with trackers.training("teacher", tmp_path, [], {}) as tell:
            tell({"run": "teacher", "step": 0, "loss": 2, "ready": True, "valid/HR@1": 0.5})
            tell({"run": "teacher", "step": 4, "note": None, "gate": 0.25})
        train(trackers, tmp_path, [0], name="prompt/distilled")
        assert "finished" not in server.runs["run-0"]
    run = server.runs["run-0"]
    assert run["log"] == [
        ("teacher", 0, {"loss": 2.0, "valid/HR@1": 0.5}),
        ("teacher", 4, {"gate": 0.25}),
        ("prompt/distilled", 0, {"loss": 1.0}),
    ]
    assert (run["name"], run["settings"], run["finished"]) == ("shop", SETTINGS, True)


def test_a_killed_run_goes_on_without_a_step_twice_or_out_of_order(tmp_path, server):
    make = remote(server)
    killed = make(tmp_path).__enter__()
    train(killed, tmp_path, [0, 5, 10])  # nothing is closed: the process is gone
    with make(tmp_path) as trackers:  # the checkpoint is that of step 5
        train(trackers, tmp_path, [10, 15], rows=[row(0), row(5)])
    assert list(server.runs) == ["run-0"]
    assert server.steps("run-0", "teacher") == [0, 5, 10, 15]


class CutOff(Remote):
    """The row arrives, and then the process ends."""

    def log(self, training, step, values, *, number):
        super().log(training, step, values, number=number)
        raise KeyboardInterrupt


def test_a_kill_while_a_row_is_sent_does_not_send_it_twice(tmp_path, server):
    make, server.opens = remote(server), CutOff
    with pytest.raises(KeyboardInterrupt), make(tmp_path) as trackers:
        train(trackers, tmp_path, [0])
    server.opens = Remote
    with make(tmp_path) as trackers:
        train(trackers, tmp_path, [0, 5])
    assert server.steps("run-0", "teacher") == [0, 5]


def test_a_tracker_that_comes_later_gets_the_rows_of_the_checkpoint(tmp_path, server):
    with remote(server)(tmp_path) as trackers:
        train(trackers, tmp_path, [10], rows=[row(0), row(5)])
    assert server.steps("run-0", "teacher") == [0, 5, 10]


def test_a_server_that_goes_away_is_told_once_and_given_the_rest_later(tmp_path, server, capsys):
    make = remote(server)
    with make(tmp_path) as trackers:
        train(trackers, tmp_path, [0])
        server.away = "log"
        train(trackers, tmp_path, [5, 10])
        trackers.results({"delrec/HR@1": 0.5})
    warning = capsys.readouterr().err
    assert warning.count("WARNING") == 1 and warning.count("\n") == 1
    assert "fake is told nothing more by this command (the server is away)" in warning
    assert server.steps("run-0", "teacher") == [0] and "results" not in server.runs["run-0"]
    server.away = ""
    with make(tmp_path) as trackers:
        train(trackers, tmp_path, [15], rows=[row(0), row(5), row(10)])
    assert server.steps("run-0", "teacher") == [0, 10, 15]  # that of step 5 may have arrived


@pytest.mark.parametrize("broken", [OSError(28, "No space left on device"), ValueError("")])
@pytest.mark.parametrize("where", ["start", "write", "end", "results", "close"])
def test_one_that_fails_anywhere_leaves_the_others_alone(tmp_path, server, capsys, where, broken):
    class Broken:
        def __getattr__(self, name):
            def act(*args, **kwargs):
                if name == where:
                    raise broken

            return act

    with remote(server, broken=Kind((), lambda *_: Broken()))(tmp_path) as trackers:
        train(trackers, tmp_path, [0, 5])
        trackers.results({"delrec/HR@1": 0.5})
    assert server.steps("run-0", "teacher") == [0, 5]
    assert server.runs["run-0"]["results"] == [(0, {"delrec/HR@1": 0.5})]
    told = capsys.readouterr().err
    assert told.count("WARNING: config.watch: broken") == told.count("WARNING") == 1


def test_a_failure_of_the_command_is_told_and_not_hidden(tmp_path, server):
    with pytest.raises(RuntimeError), remote(server)(tmp_path) as trackers:
        train(trackers, tmp_path, [0])
        raise RuntimeError
    assert server.runs["run-0"]["finished"] is False


def test_other_settings_or_other_inputs_begin_another_run(tmp_path, server):
    with remote(server)(tmp_path) as trackers:
        train(trackers, tmp_path, [0, 5])
        train(trackers, tmp_path, [0], name="lm")
    with remote(server)(tmp_path) as trackers:  # the same once more: nothing new
        train(trackers, tmp_path, [0, 5])
    with remote(server)(tmp_path) as trackers:  # earlier results have changed
        train(trackers, tmp_path, [0], identity={"seed": 0, "results of prepare": "f00"})
    with remote(server, {"seed": 1})(tmp_path) as trackers:  # --update
        train(trackers, tmp_path, [0])
    assert [len(run["log"]) for run in server.runs.values()] == [3, 1, 1]
    assert server.runs["run-2"]["settings"] == {"seed": 1}


def test_nothing_to_tell_opens_nothing(tmp_path, server):
    with remote(server)(tmp_path / "run") as trackers, trackers.training("lm", tmp_path, [], {}):
        pass
    assert not server.runs and not (tmp_path / "run").exists()


def test_results_are_sent_again_only_when_they_differ(tmp_path, server):
    for value in (0.5, 0.5, 0.25, 0.25):
        with remote(server)(tmp_path) as trackers:
            trackers.results({"delrec/HR@1": value})
    sent = [(0, {"delrec/HR@1": 0.5}), (1, {"delrec/HR@1": 0.25})]
    assert [run["results"] for run in server.runs.values()] == [sent]


def test_a_run_that_was_deleted_at_the_server_is_named_with_the_remedy(tmp_path, server, capsys):
    with remote(server)(tmp_path) as trackers:
        train(trackers, tmp_path, [0])
    server.runs.clear()
    with remote(server)(tmp_path) as trackers:
        train(trackers, tmp_path, [5])
    err = capsys.readouterr().err
    assert "no run run-0" in err and f"remove {tmp_path / 'tracking' / 'fake.json'}" in err
    (tmp_path / "tracking" / "fake.json").write_text("{")  # a damaged file is as good as none
    with remote(server)(tmp_path) as trackers:
        train(trackers, tmp_path, [5])
    assert server.steps("run-0", "teacher") == [5]


def test_what_is_stored_is_readable(tmp_path, server):
    with remote(server)(tmp_path) as trackers:
        train(trackers, tmp_path, [0, 5])
    stored = json.loads((tmp_path / "tracking" / "fake.json").read_text())
    assert (stored["id"], stored["trainings"]["teacher"]["step"]) == ("run-0", 5)


def test_only_the_main_process_tells(tmp_path, server, monkeypatch):
    monkeypatch.setattr(module, "is_main", lambda: False)
    with remote(server)(tmp_path) as trackers:
        train(trackers, tmp_path, [0])
        trackers.results({"delrec/HR@1": 0.5})
    assert not server.runs and not list(tmp_path.iterdir())


def test_names_and_mistakes():
    assert tracker_names("") == tracker_names(" , ") == ()
    assert tracker_names("mlflow, wandb,mlflow") == ("mlflow", "wandb")
    with pytest.raises(UserError) as caught:
        Experiment(watch="wandb,neptune")
    assert str(caught.value) == (
        "config.watch is 'wandb,neptune', but there is no tracker 'neptune': use tensorboard, wandb, mlflow, several joined "
        "by commas, or '' for none"
    )


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_package_is_told_before_anything_happens(tmp_path, monkeypatch, name):
    for package in KINDS[name].packages:
        monkeypatch.setitem(sys.modules, package, None)  # what Python itself does for "not there"
    with pytest.raises(UserError) as caught, Trackers(name, tmp_path):
        raise AssertionError("began")
    package = KINDS[name].packages[0]
    assert str(caught.value) == (
        f'config.watch is {name}, but {package} is not installed: pip install ".[{name}]", or leave {name} out of '
        "config.watch"
    )


def test_what_wandb_is_told(tmp_path, monkeypatch):
    calls = []

    class Run:
        id = "abc"

        def __init__(self):
            self.summary = types.SimpleNamespace(update=lambda v: calls.append(("summary", v)))

        def __getattr__(self, name):
            return lambda *args, **kwargs: calls.append((name, *args, kwargs))

    def init(**settings):
        calls.append(("init", settings["id"], settings["resume"], settings["config"]))
        return Run()

    fake = types.ModuleType("wandb")
    fake.init, fake.Settings = init, lambda **settings: settings
    fake.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for steps in ([0, 5], [5, 9]):
        with Trackers("wandb", tmp_path, {"seed": 3}) as trackers:
            train(trackers, tmp_path, steps)
            trackers.results({"delrec/HR@1": 0.5})
    commit = {"commit": True}
    assert [call for call in calls if call[0] != "define_metric"] == [
        ("init", None, None, {"seed": 3}),
        ("log", {"teacher/step": 0, "teacher/loss": 1.0}, {"step": 0, **commit}),
        ("log", {"teacher/step": 5, "teacher/loss": 1 / 6}, {"step": 1, **commit}),
        ("summary", {"results/delrec/HR@1": 0.5}),
        ("finish", {"exit_code": 0}),
        ("init", "abc", "allow", {"seed": 3}),
        ("log", {"teacher/step": 9, "teacher/loss": 0.1}, {"step": 2, **commit}),
        ("finish", {"exit_code": 0}),
    ]
    defined = [call[1:] for call in calls if call[0] == "define_metric"]
    assert defined[0] == ("teacher/step", {"hidden": True})
    assert defined[1] == ("teacher/loss", {"step_metric": "teacher/step"})
    assert len(defined) == 4  # once per process
