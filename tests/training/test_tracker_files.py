"""What TensorBoard, MLflow and W&B really keep, read back and compared with `metrics.jsonl`."""

import json
import math
import struct

import pytest
from tiny_storefront import CONFIG, TINY, delrec

from delrec_jax.training.tracking.mlflow_run import metric_name
from delrec_jax.training.tracking.tracker import numbers
from delrec_jax.training.tracking.trackers import Trackers

SETTINGS = {"seed": 0, "lm.weights": "", "tune.loop.steps": 9}


def row(step, **values):
    return {"run": "teacher", "step": step, "loss": 1.0 / (1 + step), **values}


def train(watch, root, steps, rows=()):
    """What one process does that is killed afterwards: nothing is closed."""
    trackers = Trackers(watch, root, SETTINGS).__enter__()
    with trackers.training("teacher", root / "teacher", list(rows), {"seed": 0}) as tell:
        for step in steps:
            tell(row(step, **{"valid/HR@1": step / 100}))
    return trackers


def scalars(folder):
    """{tag: {step: value}} as TensorBoard shows them: a file that says START makes it forget the steps from there on."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda p: p.stat().st_mtime_ns):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = proto.Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            if event.session_log.status == 1:  # START
                found = {
                    tag: {step: value for step, value in values.items() if step < event.step}
                    for tag, values in found.items()
                }
            for value in event.summary.value:
                assert event.step not in found.setdefault(value.tag, {})
                found[value.tag][event.step] = value.simple_value
    return {tag: values for tag, values in found.items() if values}


def by_name(rows, renamed=str):
    """{name: {step: value}} of rows."""
    found = {}
    for one in rows:
        for name, value in numbers(one).items():
            found.setdefault(renamed(name), {})[one["step"]] = value
    return found


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_close(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert list(found[name]) == list(wanted[name])
        for step, value in wanted[name].items():
            assert math.isclose(found[name][step], value, rel_tol=1e-6)


def test_events_are_those_of_the_rows(tmp_path):
    scalars(tmp_path)
    train("tensorboard", tmp_path, [0, 5, 10])
    rows = [row(step, **{"valid/HR@1": step / 100}) for step in (0, 5, 10, 15)]
    trackers = train("tensorboard", tmp_path, [10, 15], rows=rows[:2])
    assert_close(scalars(tmp_path / "teacher"), by_name(rows, metric_name))  # which has no @ either
    for value in (0.5, 0.25):
        trackers.results({"delrec/HR@1": value})
    assert scalars(tmp_path / "report") == {"results/delrec/HR_1": {0: 0.25}}


@pytest.mark.slow
def test_every_training_run_reaches_tensorboard_and_so_do_the_results(tmp_path):
    scalars(tmp_path)
    workdir = tmp_path / "run"
    delrec("run", CONFIG, f"--workdir={workdir}", *TINY, "--config.watch=tensorboard")
    logs = list(workdir.rglob("metrics.jsonl"))
    assert {path.parent.parent.name for path in logs} == {"lm", "teacher", "prompt", "adapter"}
    for path in logs:
        assert_close(scalars(path.parent), by_name(read_rows(path), metric_name))
    table = json.loads((workdir / "report" / "metrics.json").read_text())
    wanted = {
        metric_name(f"results/{one['system']}/{one['metric']}"): one["value"]
        for one in table
        if one["protocol"] == "full"
    }
    found = scalars(workdir / "report")
    assert {name: values[0] for name, values in found.items()} == pytest.approx(wanted, rel=1e-6)


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs delrec-jax[mlflow]")
    pytest.importorskip("alembic", reason="needs delrec-jax[mlflow]")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def mlflow_history(names):
    """The one run of the experiment, and the steps and values of its metrics in the order of their times."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("delrec-jax")
    [run] = client.search_runs([experiment.experiment_id])
    found = {}
    for name in names:
        history = client.get_metric_history(run.info.run_id, metric_name(name))
        found[name] = [(one.step, one.value) for one in history]
    return run, found


@pytest.mark.trackers
def test_mlflow_goes_on_in_the_same_run_of_its_sqlite_store(tmp_path, mlflow_store):
    root = tmp_path / "shop"
    train("mlflow", root, [0, 5, 10])
    rows = [row(step, **{"valid/HR@1": step / 100}) for step in (0, 5)]
    trackers = train("mlflow", root, [10, 15], rows=rows)
    trackers.results({"hybrid(delrec+teacher)/HR@1": 0.5})
    trackers.__exit__(None, None, None)
    names = ("teacher/loss", "teacher/valid/HR@1", "results/hybrid(delrec+teacher)/HR@1")
    run, found = mlflow_history(names)
    assert found[names[0]] == [(step, 1 / (1 + step)) for step in (0, 5, 10, 15)]
    assert found[names[1]] == [(step, step / 100) for step in (0, 5, 10, 15)]
    assert found[names[2]] == [(0, 0.5)]
    assert run.data.params == {key: str(value) for key, value in SETTINGS.items()}
    assert (run.info.run_name, run.info.status) == ("shop", "FINISHED")


def wandb_records(folder):
    """The records of W&B's offline files, oldest first: LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, place, parts = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if (left := 32768 - place % 32768) < 7:
                place += left
                continue
            _, length, kind = struct.unpack_from("<IHB", data, place)
            parts += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part
                yield Record.FromString(parts)
                parts = b""


@pytest.fixture
def wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs delrec-jax[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    yield
    wandb.teardown()  # the next test's variables are read anew


def wandb_history(folder):
    """The ids of the runs, the settings, the rows, and the summary."""
    runs, config, rows, summary = set(), {}, [], {}
    for record in wandb_records(folder):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            runs.add((record.run.project, record.run.run_id, record.run.display_name))
            config |= {one.key: json.loads(one.value_json) for one in record.run.config.update}
        items = record.history.item if kind == "history" else record.summary.update
        named = {
            "/".join(filter(None, (one.key, *one.nested_key))): one.value_json for one in items
        }
        read = {name: json.loads(text) for name, text in named.items()}
        if kind == "history":
            rows.append(read)
        summary |= read
    return runs, config, rows, summary


@pytest.mark.trackers
def test_wandb_goes_on_in_the_same_run_offline(tmp_path, wandb_offline):
    root = tmp_path / "shop"
    train("wandb", root, [0, 5, 10]).__exit__(KeyboardInterrupt, None, None)
    rows = [row(step, **{"valid/HR@1": step / 100}) for step in (0, 5)]
    trackers = train("wandb", root, [10, 15], rows=rows)
    trackers.results({"delrec/HR@1": 0.5})
    trackers.__exit__(None, None, None)
    runs, config, rows, summary = wandb_history(tmp_path)
    [(project, run_id, name)] = runs
    stored = json.loads((root / "tracking" / "wandb.json").read_text())
    assert (project, run_id, name) == ("delrec-jax", stored["id"], "shop")
    assert SETTINGS.items() <= config.items()
    told = [(one["_step"], one["teacher/step"], one["teacher/loss"]) for one in rows]
    assert told == [(i, step, 1 / (1 + step)) for i, step in enumerate((0, 5, 10, 15))]
    assert summary["results/delrec/HR@1"] == 0.5


@pytest.mark.trackers
def test_a_stage_reaches_both(tmp_path, mlflow_store, wandb_offline):
    flags = (CONFIG, f"--workdir={tmp_path / 'run'}", *TINY, "--config.watch=mlflow,wandb")
    delrec("prepare", *flags)
    delrec("teach", *flags)
    [log] = (tmp_path / "run").glob("teacher/**/metrics.jsonl")
    wanted = {f"teacher/{name}": values for name, values in by_name(read_rows(log)).items()}
    run, found = mlflow_history(wanted)
    assert_close({name: dict(values) for name, values in found.items()}, wanted)
    assert run.data.params["teacher.loop.steps"] == "8" and "mesh.data" not in run.data.params
    _, config, rows, _ = wandb_history(tmp_path)
    assert config["teacher.loop.steps"] == 8
    for name, values in wanted.items():
        told = {one["teacher/step"]: one[name] for one in rows if name in one}
        assert told == values
