"""What a study's tables tell and what they hide, from made-up records: no run is executed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from evidence_workdirs import HALF, SOME, THIRD, workdir

from delrec_jax.studies.beyond import _cell
from delrec_jax.studies.selection import validation_so_far
from delrec_jax.studies.study import Arm, Study
from delrec_jax.studies.summary import summarise
from delrec_jax.studies.tables import _power

RANKS = {"a": SOME, "b": HALF, "c": THIRD}
BEST = {"a": 0.1, "b": 0.3, "c": 0.2}
"""What validation measured of each arm at the step that it selected."""

LISTS = [{"label": arm, "system": "teacher", "teacher": "sasrec"} for arm in RANKS]


def opened(root, *, done=("a", "b", "c"), shift=0):
    """A tuned study of three arms with records of their teachers; the seeds of the last are shifted."""
    arms = tuple(Arm(name, {"x": name}, seed_shift=shift * (name == "c")) for name in RANKS)
    study = Study("?", arms, "a", seeds=(0,), systems=("teacher",), tuned=True)
    runs = [SimpleNamespace(arm=arm, seed=0, name=f"{arm.name}-0") for arm in arms]
    workdirs = {}
    for run in runs:
        name, ranks = run.arm.name, {"teacher": RANKS[run.arm.name]}
        seed = run.arm.seed_shift
        path = Path(workdir(root, run.name, ranks, folder="records", seed=seed))
        model = path / "teacher" / "model"
        model.mkdir(parents=True)
        (model / "result.json").write_text(json.dumps({"best_step": 4}))
        steps = ((0, 0.9), (4, BEST[name]))
        rows = [{"run": "t", "step": step, "valid/NDCG@10": value} for step, value in steps]
        (model / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        workdirs[run.name] = SimpleNamespace(root=path, folder=lambda stage, p=path: p / "teacher")
    return SimpleNamespace(
        root=root,
        study=study,
        runs=runs,
        workdirs=workdirs,
        done=[run for run in runs if run.arm.name in done],
        records=lambda run: workdirs[run.name].root / "records" / "records.parquet",
    )


def shown(summary):
    """The systems of the tables."""
    return {row["system"] for row in summary["systems"]}


def test_test_figures_of_arms_that_validation_did_not_choose_are_hidden(tmp_path):
    found = summarise(opened(tmp_path), LISTS)
    assert found["study"]["validation"] == {arm: [value] for arm, value in BEST.items()}
    assert found["study"]["selected"] == "b"
    assert shown(found) == {"teacher/a", "teacher/b"}
    told = json.dumps({name: part for name, part in found.items() if name != "study"})
    assert "teacher/c" not in told
    assert [row["label"] for row in found["beyond"]] == ["a", "b"]


def test_they_are_shown_if_asked_for_and_not_compared_before_all_arms_are_finished(tmp_path):
    assert len(shown(summarise(opened(tmp_path / "1"), LISTS, show_test=True))) == 3
    some = summarise(opened(tmp_path / "2", done=("a", "b")), LISTS)
    assert some["study"]["selected"] == "" and shown(some) == {"teacher/a"}
    assert some["study"]["unfinished"] == ["c-0"]


def test_an_arm_of_other_seeds_is_paired_under_those_of_the_study(tmp_path):
    found = summarise(opened(tmp_path, shift=100), LISTS, show_test=True)
    assert {tuple(row["seeds"]) for row in found["systems"]} == {(0,)}
    assert len(found["comparisons"]) == 2


def test_what_the_tests_can_see_comes_from_the_widths_of_their_intervals():
    """2.80 standard errors: 1.96 to be significant, and 0.84 to be so in four of five samples."""
    rows = [{"low": -half, "high": half} for half in (0.0098, 0.0196, 0.0392)]
    assert "of 0.0280 with a power of 80 %" in _power(rows)


@pytest.mark.parametrize(
    ("value", "key", "text", "spread"),
    [
        ({"mean": 0.002, "sd": None}, "seconds_per_user", "2.000", ""),
        ({"mean": 0.002, "sd": 0.0005}, "seconds_per_example", "2.000", "± 0.500"),
        ({"mean": 12.5, "sd": 1.0}, "train_seconds", "12.500", "± 1.000"),
        ({"mean": 1234567.0, "sd": 0.0}, "trained_parameters", "1,234,567", ""),
        (None, "memory_gib", "–", ""),
    ],
)
def test_costs_are_shown_in_the_units_of_their_columns(value, key, text, spread):
    cell = _cell(value, key)
    assert (cell.text, cell.interval) == (text, spread)


def test_a_log_that_is_being_written_is_read_up_to_its_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert validation_so_far(path, "HR@1") == {}
    rows = [
        {"step": 0, "valid/HR@1": 0.1},
        {"step": 5, "loss": 2.0},
        {"step": 10, "valid/HR@1": 0.2},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 20, "valid/H')
    assert validation_so_far(path, "HR@1") == {0: 0.1, 10: 0.2}
