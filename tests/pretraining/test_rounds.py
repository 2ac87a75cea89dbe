"""Pre-training goes on until the gate is passed, and a round is as resumable as any other training."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
from tiny_storefront import CONFIG, TINY, delrec

from delrec_jax.config import GateConfig
from delrec_jax.pretraining.gate import Gate
from delrec_jax.training.preemption import StopRequest
from delrec_jax.training.watching import TIMINGS

STEPS = 6  # of a round
GATE = "--config.pretrain.gate.next_in_series"


@pytest.fixture
def pretrain(tiny_run, tmp_path):
    """(workdir's name, *flags) -> its folder of the language model; the corpus is the tiny run's."""

    def run(name, *flags):
        workdir = tmp_path / name
        if not workdir.exists():
            shutil.copytree(tiny_run / "data", workdir / "data")
        delrec(
            "pretrain", CONFIG, f"--workdir={workdir}", *TINY, "--config.pretrain.rounds=2", *flags
        )
        return run.folder(name)

    run.folder = lambda name: tmp_path / name / "lm"
    return run


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_clock(row):
    return {name: value for name, value in row.items() if name not in TIMINGS}


def result(folder):
    return (folder / "result.safetensors").read_bytes()


def test_a_second_round_goes_on_from_the_first_and_the_first_that_passes_is_kept(
    pretrain, tiny_run, monkeypatch
):
    asked = []

    def failed(gate, marks):
        asked.append(marks)
        return {"next_in_series": 1.0} if len(asked) == 1 else {}

    monkeypatch.setattr(Gate, "failed", failed)
    lm = pretrain("run", "--config.pretrain.rounds=3")
    first, second = rows(lm / "round-1"), rows(lm / "round-2")
    assert not (lm / "round-3").exists()
    assert {row["run"] for row in second} == {"lm/round-2"}
    assert [row["step"] for row in first] == [row["step"] for row in second] == [0, 3, STEPS]
    assert second[0]["gate"] == first[-1]["gate"] and second[-1]["loss"] < first[1]["loss"]
    assert result(lm / "model") == result(lm / "round-2") != result(lm / "round-1")
    assert result(lm / "round-1") == result(tiny_run / "lm" / "model"), "one round is as it was"
    assert json.loads((lm / "model" / "result.json").read_text())["round"] == 2


def test_a_killed_round_ends_bit_identical_and_a_lower_gate_trains_nothing_again(
    pretrain, monkeypatch, capsys
):
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        asked = itertools.count(1)
        # After the fourth step of the second round.
        patch.setattr(StopRequest, "asked", lambda stop: next(asked) == STEPS + 4)
        pretrain("killed", f"{GATE}=1.0")
    assert ended.value.code not in (0, 2)
    messages = []
    for name in ("killed", "whole"):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            pretrain(name, f"{GATE}=1.0")
        assert ended.value.code == 2
        messages.append(capsys.readouterr().err.splitlines()[-1])
    assert re.search(
        r"failed the gate: next_in_series 0\.\d{3}, then 0\.\d{3}, required 1\.000 \(pretrain\.gate\.next_in_series\) "
        "after 2 rounds of 6 steps",
        messages[0],
    )
    assert messages[0] == messages[1]
    lm, whole = pretrain.folder("killed"), pretrain.folder("whole")
    assert result(lm / "round-2") == result(whole / "round-2")
    assert [without_clock(row) for row in rows(lm / "round-2")] == [
        without_clock(row) for row in rows(whole / "round-2")
    ]
    assert not (lm / "model").exists() and not (lm / "base.json").exists()

    made = {path: path.stat().st_mtime_ns for path in lm.glob("round-*/*.safetensors")}
    pretrain("killed", f"{GATE}=0.0", "--update")
    assert made == {path: path.stat().st_mtime_ns for path in lm.glob("round-*/*.safetensors")}
    assert result(lm / "model") == result(lm / "round-1"), "the first that passes"
    base = (lm / "base.json").read_bytes()
    with pytest.raises(SystemExit):
        pretrain("killed", f"{GATE}=1.0", "--update")
    assert "failed the gate" in capsys.readouterr().err, "a gate raised afterwards holds too"
    pretrain("killed", f"{GATE}=0.0", "--update")
    assert (lm / "base.json").read_bytes() == base, "later stages are not run again"


def test_a_mark_without_questions_is_refused_before_training(pretrain, capsys):
    with pytest.raises(SystemExit):
        pretrain("run", "--config.pretrain.gate.next_item=0.1")
    assert "pretrain.gate.next_item is 0.1, but this corpus has no such" in capsys.readouterr().err
    assert not (pretrain.folder("run") / "round-1").exists()


def test_the_gate_counts_attributes_once(monkeypatch):
    ranks = {"attribute/genre": 1.0, "attribute/year": 7.0, "next_in_series": 1.0, "next_item": 9.0}
    monkeypatch.setattr(Gate, "_ranks", lambda gate, params, name, exam: np.array([ranks[name]]))
    required = GateConfig(attributes=0.6, next_in_series=0.6, next_item=1.0)
    gate = Gate(dict.fromkeys(ranks), None, required, None, None)
    marks = gate.measure(None)
    assert marks["attributes"] == 0.5 and marks["next_item"] == 1.0
    assert marks["gate"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert gate.failed(marks) == {"attributes": 0.6}
