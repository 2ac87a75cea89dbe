"""What a study is, what is refused, and what its runs share: nothing is run here."""

import json
import os
import re
from collections import Counter
from unittest import mock

import pytest
from study_files import WIDTHS, study_file, tiny_base
from tiny_storefront import ROOT

from delrec_jax.analysis.axis_plots import HeatMap
from delrec_jax.analysis.study_plots import Bars
from delrec_jax.config import read_config
from delrec_jax.errors import UserError
from delrec_jax.results.pairs import Pair
from delrec_jax.studies import command, processes
from delrec_jax.studies.command import parse_shard
from delrec_jax.studies.figures import figures
from delrec_jax.studies.opening import open_study
from delrec_jax.studies.runs import StudyFile, study_runs
from delrec_jax.studies.scheduling import Schedule
from delrec_jax.studies.selection import best_arm, validation
from delrec_jax.studies.sharing import _link, lock_places
from delrec_jax.studies.study import Arm, Study, along, grid
from delrec_jax.studies.summary import _of_one_teacher
from delrec_jax.studies.trial_runs import make_space
from delrec_jax.workdir.session import in_use, locked

STUDIES = sorted((ROOT / "configs" / "studies").glob("*.py"))


def study(**changes):
    """A study of two arms."""
    arms = (Arm("a"), Arm("b", {"distill.length": 5}))
    return Study(**{"question": "?", "arms": arms, "reference": "a", **changes})


def test_arms_along_a_key_and_on_a_grid():
    lengths = along("distill.length", (4, 8), also=lambda k: {"prompts.max_tokens": 96 + k})
    shown = along("prompts.show_candidates", (False, True), axis="listed")
    assert [arm.name for arm in lengths] == ["length=4", "length=8"]
    assert lengths[1].changes == {"distill.length": 8, "prompts.max_tokens": 104}
    assert lengths[1].at == {"length": 8}
    both = grid(lengths, shown)
    assert [arm.name for arm in both] == [
        *("length=4,listed=False", "length=4,listed=True"),
        *("length=8,listed=False", "length=8,listed=True"),
    ]
    assert both[1].changes == {**lengths[0].changes, **shown[1].changes}
    assert both[1].at == {"length": 4, "listed": True}
    seeds = (Arm("these", seed_shift=0), Arm("others", seed_shift=100))
    assert [arm.seed_shift for arm in grid(lengths, seeds)] == [0, 100, 0, 100]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: study(reference="c"), "reference 'c' is none of its arms: a, b"),
        (lambda: study(arms=(Arm("a"), Arm("a"))), "two arms are named 'a'"),
        (lambda: study(seeds=(0, 0)), "seeds are (0, 0)"),
        (lambda: study(metric="HR@3"), "metric 'HR@3'"),
        (lambda: study(protocol="fool"), "protocol 'fool': use full, full_with_seen, sampled-M"),
        (lambda: study(command="teach"), "command 'teach'"),
        (lambda: study(systems=("delrek",)), "no system 'delrek'"),
        (lambda: Arm("a b"), "arm 'a b'"),
        (lambda: Arm("a", systems=("x",)), "arm a: there is no system 'x'"),
        (lambda: parse_shard("2/2"), "--shard=2/2: give I/N"),
        (lambda: parse_shard("-1/2"), "--shard=-1/2"),
    ],
)
def test_a_wrong_study_is_refused(make, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (
            (Arm("a"), Arm("b", {"distill.lenght": 5})),
            "arm b: config.distill.lenght does not exist",
        ),
        ((Arm("a"), Arm("b", {"distill.length": "x"})), "arm b: "),
        ((Arm("a"), Arm("b", {"distill.top_h": 99})), "arm b: distill.top_h is 99"),
        ((Arm("a"), Arm("b", {"seed": 7})), "arm b: changes the seed"),
        ((Arm("a"), Arm("b", {"distill.length": 3})), "arms a and b have the same settings"),
        (
            (Arm("a"), Arm("b", {"distill.tasks.first.share": 0.2})),
            "a task is added in the base config, with a share of 0",
        ),
        (
            (Arm("a", {"method": "p2rec", "parse.seeds": 2}), Arm("b")),
            "arm a: parse.seeds is 2, so that the runs of the study's seeds 0 and 1 would both have seed 1: set parse.seeds",
        ),
    ],
)
def test_arms_that_cannot_be_run_are_named(arms, message):
    with pytest.raises(UserError, match=re.escape(message)):
        study_runs(study(arms=arms), tiny_base())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BASE = 1", "has no BASE"),
        ("BASE = 'a.py'", "has no function get_study(base)"),
        ("BASE = 'a.py'\ndef get_study(base):\n    return 3", "it must return a Study"),
        ("BASE = 'a.py'\ndef get_study(base):\n    return base.nothing", "nothing"),
        ("import nothing_of_this_name", "nothing_of_this_name"),
    ],
)
def test_a_broken_study_file_is_named(tmp_path, text, message):
    path = study_file(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        StudyFile.load(path).study(tiny_base())
    assert str(path) in str(refused.value)


def test_every_stage_with_the_same_settings_is_run_once(tmp_path):
    opened = open_study(StudyFile.load(study_file(tmp_path)), tiny_base(), tmp_path / "s")
    runs = Counter(key.split("-")[0] for job in opened.jobs for key in job.keys)
    # Two seeds of two widths; the third arm has the teachers of the first, and tables of its own.
    assert runs == {"prepare": 1, "fit": 1, "teach": 4, "baseline": 6}
    wide, narrow = (opened.workdirs[name] for name in ("wide-0", "narrow-0"))
    again = opened.workdirs["narrow_again-0"]
    assert narrow.folder("teach").resolve() == again.folder("teach").resolve()
    assert narrow.folder("teach").resolve() != wide.folder("teach").resolve()
    assert narrow.folder("prepare").resolve() == wide.folder("prepare").resolve()
    seen = set()
    for job in opened.jobs:  # each after those that it needs
        assert job.needs <= seen
        seen |= set(job.keys)


def test_a_workdir_belongs_to_one_study(tmp_path):
    path, root = study_file(tmp_path), tmp_path / "s"
    open_study(StudyFile.load(path), tiny_base(), root)
    before = {one.name: one.resolve() for one in (root / "runs" / "wide-0").iterdir()}
    study_file(tmp_path, WIDTHS.replace('width": 32', 'width": 24').replace('"wide"', '"wider"'))
    with pytest.raises(UserError, match=r"belongs to another study: study\.arms\.1"):
        open_study(StudyFile.load(path), tiny_base(), root)
    study_file(tmp_path, WIDTHS.replace('"teacher.sasrec.width": 32', '"teacher.sasrec.width": 24'))
    changed = open_study(StudyFile.load(path), tiny_base(), root, update=True)
    now = {one.name: one.resolve() for one in changed.workdirs["wide-0"].root.iterdir()}
    assert now["data"] == before["data"] and before["data"].exists()
    assert now["teacher"] != before["teacher"] and before["teacher"].exists()  # kept


def test_the_best_arm_is_that_of_the_best_mean_over_seeds():
    assert best_arm({"a": [0.3, 0.1], "b": [0.2, 0.2], "c": [0.25, 0.2]}) == "c"
    assert best_arm({"a": [0.2], "b": [0.2]}) == "a"


def test_arms_on_two_axes_that_none_crosses_are_drawn_as_bars():
    """And where some arms cross both, those that do not are left out of the map."""
    lengths, items = along("distill.length", (4, 8)), along("distill.top_h", (3, 6))
    crossed = grid(lengths, items)
    reference = Arm("full")
    for arms, kind in (((reference, *lengths, *items), Bars), ((reference, *crossed), HeatMap)):
        shown = Study("Which?", arms=arms, reference="full", systems=("delrec",))
        rows = [
            {
                "protocol": shown.protocol,
                "group": "all",
                "system": f"delrec/{arm.name}",
                "label": arm.name,
                "teacher": "sasrec",
            }
            | {shown.metric: {"mean": 0.5, "low": 0.4, "high": 0.6, "sd": 0.0}}
            for arm in arms
        ]
        (figure,) = figures(shown, {"systems": rows}, [])
        assert isinstance(figure, kind)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_opens_on_its_base(path, tmp_path):
    file = StudyFile.load(path)
    base = read_config(file.base)
    shipped = file.study(base)
    found = study_runs(shipped, base)
    assert len({run.arm.name for run in found}) > 1 or make_space(shipped, base).ranges
    for word in ("Question:", "Arms:", "Command: delrec study --config=configs/studies/", "Time:"):
        assert word in path.read_text(), f"{path.name} does not say {word}"


def test_a_study_that_was_copied_without_its_links_is_told(tmp_path):
    (tmp_path / "run" / "data").mkdir(parents=True)
    with pytest.raises(UserError, match="data: a folder, where the runs of a study have a link"):
        _link(tmp_path / "run" / "data", tmp_path / "stages" / "prepare")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["data"]


def test_a_validated_choice_needs_a_system_that_validation_knows(tmp_path):
    text = WIDTHS.replace("by_users=True", "tuned=True")
    with pytest.raises(UserError, match=r"tuned=True.* no value of 'teacher' .*'baseline'"):
        open_study(StudyFile.load(study_file(tmp_path, text)), tiny_base(), tmp_path / "s")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "HR@10"}, r"measures no HR@10 of 'delrec': use HR@1 or NDCG@10"),
        (
            {"systems": ("teacher_augmented",), "metric": "HR@1"},
            r"no HR@1 of 'teacher_augmented': use NDCG@10",
        ),
        ({"arms": (Arm("a"), Arm("b", {"seed": 1}, ("ease",)))}, "of 'ease': use another system"),
    ],
)
def test_validation_chooses_by_what_it_measures(tmp_path, changes, message):
    file = mock.Mock(path=tmp_path / "study.py")
    file.study.return_value = study(**{"tuned": True, "metric": "NDCG@10", **changes})
    with pytest.raises(UserError, match=message):
        open_study(file, tiny_base(), tmp_path / "s")


def test_values_of_validation_are_shown_where_there_are_any(tmp_path):
    """Only where validation chooses an arm must each have one."""
    ws = mock.Mock(root=tmp_path, folder=lambda stage: tmp_path / stage)
    (tmp_path / "tune" / "distilled").mkdir(parents=True)
    (tmp_path / "tune" / "distilled" / "result.json").write_text('{"best_step": 10}')
    row = {"run": "distilled", "step": 10, "valid/NDCG@10": 0.25, "valid/HR@1": 0.125}
    (tmp_path / "tune" / "distilled" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "augment").mkdir()
    (tmp_path / "augment" / "augment.json").write_text("[]")

    def values(system, metric, *, required=False):
        asked = study(systems=(system,), metric=metric)
        run = mock.Mock(arm=asked.arms[0])
        run.name = "a-0"
        return validation(asked, [run], {"a-0": ws}, required=required)

    assert values("delrec", "NDCG@10") == {"a": [0.25]}
    assert values("delrec", "HR@1", required=True) == {"a": [0.125]}
    for system, metric, message in (
        ("delrec", "HR@10", r"no HR@10 of delrec .* measures HR@1 and NDCG@10"),
        ("ease", "NDCG@10", "of this system, validation selects nothing"),
        ("teacher", "NDCG@10", "teach/model: has no result of training"),
        ("teacher_augmented", "NDCG@10", "has no teacher_augmented; augment.controls"),
    ):
        assert values(system, metric) == {}
        with pytest.raises(UserError, match=message):
            values(system, metric, required=True)


def test_whoever_executes_a_shared_stage_is_known(tmp_path):
    """Two studies may share `stages/`: no workdir's lock tells that the other one is at a stage."""
    opened = open_study(StudyFile.load(study_file(tmp_path)), tiny_base(), tmp_path / "s")
    job = opened.jobs[0]
    ws, other = opened.workdirs["narrow-0"], opened.workdirs["wide-0"]
    places = lock_places(ws, job.stages)
    assert job.stages[0] == "prepare" and places[0] == lock_places(other, job.stages)[0]
    assert places[0].name.startswith("prepare-") and places[0].parent.parent.name == "stages"
    schedule = Schedule(opened.root, opened.jobs, opened.workdirs)
    with locked(places[0]), mock.patch.object(processes, "start") as start:
        assert in_use(places[0])
        schedule._start_ready(1)
        assert not start.called
    with mock.patch.object(processes, "start") as start:
        schedule._start_ready(1)
        assert start.called


def test_pairs_are_of_one_recommender_where_arms_have_the_same():
    pairs = [Pair("full", ("a", one), ("b", other)) for one in "xy" for other in "xy"]
    assert _of_one_teacher(pairs) == [pairs[0], pairs[3]]
    baseline = Pair("full", ("ease", ""), ("b", "x"))
    assert _of_one_teacher([baseline, pairs[1]]) == [baseline]
    assert _of_one_teacher(pairs[1:3]) == pairs[1:3], "arms that differ in their recommender"


@pytest.mark.parametrize(
    ("given", "jobs", "left"),
    [({}, 1, None), ({}, 3, "0.300"), ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".2"}, 3, None)],
)
def test_processes_at_a_time_share_the_memory_of_a_gpu(given, jobs, left, monkeypatch):
    for name in command._FRACTIONS:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(command, "jax", mock.Mock())
    monkeypatch.setattr(command, "end_at_sigterm", lambda: None)
    command.leave_devices(jobs)
    assert os.environ.get("XLA_CLIENT_MEM_FRACTION") == left
    os.environ.pop("XLA_CLIENT_MEM_FRACTION", None)
