"""A search over ranges: what it draws, gives up, resumes and writes, with stand-ins for the processes of its trials."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from study_files import start, study_file, tiny_base
from tiny_storefront import ROOT, delrec

from delrec_jax.config import from_config, leaf_values, read_config, to_dict
from delrec_jax.errors import UserError
from delrec_jax.studies import processes
from delrec_jax.studies.best_config import changed, write_best
from delrec_jax.studies.opening import open_study
from delrec_jax.studies.ranges import Range, fitted
from delrec_jax.studies.runs import StudyFile
from delrec_jax.studies.search import Searching, table, told
from delrec_jax.studies.study import Arm, Study
from delrec_jax.studies.trial_runs import TrialRuns, make_space
from delrec_jax.studies.trials import FAILED, FINISHED, OPEN, PRUNED, Trials
from delrec_jax.studies.worker import BUSY

RATE, LENGTH = "tune.optimizer.learning_rate", "distill.length"
RANGES = (
    Range(RATE, low=1e-4, high=1e-2, log=True),
    Range(LENGTH, low=2, high=8),
    Range("baselines.hybrids", choices=(("teacher+tfidf",), ())),
)
STEPS = (0, 10, 20, 30)

RANGES_OF_TEACHER = f'''
from delrec_jax.studies.ranges import Range
from delrec_jax.studies.study import Study

BASE = "{ROOT / "configs" / "storefront.py"}"

def get_study(base):
    return Study(
        question="Which learning rate does the teacher need?",
        seeds=(0,),
        systems=("teacher",),
        command="baseline",
        ranges=(Range("teacher.optimizer.learning_rate", low=1e-4, high=1e-2, log=True),),
    )
'''


def trials(folder, *, warm_up=0, **asked):
    """The trials of a search in a folder."""
    ranges = fitted(RANGES, tiny_base())
    return Trials(folder / "search.log", ranges, seed=0, warm_up=warm_up, asked=asked)


class Fake:
    """A trial whose validation is the same at all steps; it needs a look for each."""

    def __init__(self, value, why="", at_step=None):
        self.seen, self.was_ended, self._value, self._why = 0, False, value, why
        self._at_step = value if at_step is None else at_step

    def ended(self):
        self.seen += 1
        return self._why if self.was_ended or self.seen > len(STEPS) else None

    def validation(self):
        return dict.fromkeys(STEPS[: self.seen], self._at_step)

    def value(self):
        return self._value

    def end(self):
        self.was_ended = True

    def wait(self):
        pass


def quality(drawn):
    """The best is a rate of 0.01."""
    return drawn[RATE] * 50


def run(found, total, begin=lambda number, drawn: Fake(quality(drawn)), at_once=1):
    """A search with stand-ins; returns what became of its trials."""
    Searching(found, begin, total=total, looks=0).execute(at_once)
    return found.told()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Range("a.b"), "range a.b: low is None: give two numbers as bounds, or choices"),
        (lambda: Range("a.b", low="x", high=2), "range a.b: low is 'x'"),
        (lambda: Range("a.b", low=0, high=True), "range a.b: high is True"),
        (lambda: Range("a.b", low=0, high=float("inf")), "range a.b: high is inf"),
        (lambda: Range("a.b", low=2, high=2), "low is 2 and high 2: low must be below high"),
        (lambda: Range("a.b", low=0.0, high=1.0, log=True), "low is 0.0, but with log=True"),
        (lambda: Range("a.b", low=1, choices=(1, 2)), "has choices, and also low=1"),
        (lambda: Range("a.b", choices=(1,)), "choices are (1,): give different ones"),
        (lambda: Range("a.b", choices=(1, 2, 1)), "choices are (1, 2, 1)"),
        (lambda: Range("seed", choices=(1, 2)), "all trials have the same seed"),
        (lambda: Study("?", ranges=(RANGES[0], RANGES[0])), f"two ranges are of {RATE!r}"),
        (lambda: Study("?", ranges=RANGES, reference="a"), "reference 'a' is none of its arms"),
        (lambda: Study("?", (Arm("trial-1"),), "trial-1", ranges=RANGES), "arm 'trial-1' is named"),
        (lambda: Study("?"), "neither arms nor ranges"),
    ],
)
def test_a_wrong_range_is_refused_when_the_study_is_loaded(make, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (Range("distill.lenght", low=1, high=2), "did you mean config.distill.length?"),
        (Range(LENGTH, low=0.5, high=8), f"range {LENGTH}: low is 0.5, but the config's value is"),
        (Range("teacher.name", low=1, high=2), "the config's value is 'sasrec', no number"),
        (Range("tune.train_prompt", low=0, high=1), "the config's value is False, no number"),
        (Range(LENGTH, choices=(4, "x")), f"range {LENGTH}: choice 'x': "),
    ],
)
def test_a_range_that_the_config_does_not_take_is_refused(one, message):
    with pytest.raises(UserError, match=re.escape(message)):
        fitted([one], tiny_base())


def test_values_are_of_the_config_s_kind_within_the_bounds(tmp_path):
    ranges = fitted((*RANGES, Range("tune.anchor", low=0, high=1)), tiny_base())
    found = Trials(tmp_path / "search.log", ranges, seed=0)
    seen = [found.drawn(found.ask()) for _ in range(12)]
    assert {type(one["tune.anchor"]) for one in seen} == {float}
    assert {type(one[LENGTH]) for one in seen} == {int}
    assert all(2 <= one[LENGTH] <= 8 and 1e-4 <= one[RATE] <= 1e-2 for one in seen)
    assert min(one[RATE] for one in seen) < 1e-3  # by ratios
    assert {one["baselines.hybrids"] for one in seen} == set(RANGES[2].choices)
    assert [one.drawn for one in found.told()] == seen  # also as they are read back
    with pytest.raises(UserError, match=r"another search's: seed \(None there, 1 now\)"):
        trials(tmp_path, seed=1)


def test_a_search_that_is_continued_is_the_one_that_ran_in_one_go(tmp_path, capfd):
    (tmp_path / "parts").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = run(trials(tmp_path), 14)
        run(trials(tmp_path / "parts"), 6)
        assert run(trials(tmp_path / "parts"), 14) == whole
    assert len({one.drawn[RATE] for one in whole}) == 14
    said = capfd.readouterr().err
    assert all(line.startswith("[") for line in said.splitlines())  # optuna says nothing
    assert said.count("[14/14] trial-13: ") == 2
    log = tmp_path / "search.log"
    before = log.read_bytes()
    run(trials(tmp_path), 14, begin=None)  # would fail if it began one
    assert log.read_bytes().startswith(before) and len(trials(tmp_path)) == 14
    best = trials(tmp_path).best()
    assert best[0].value == max(quality(one.drawn) for one in whole)


def test_a_trial_below_the_median_is_given_up_and_never_the_best(tmp_path):
    made = {}

    def begin(number, drawn):
        made[number] = Fake(0.5 if number < 5 else 0.9, at_step=0.5 if number < 5 else 0.1)
        return made[number]

    found = trials(tmp_path, warm_up=20)
    states = [one.state for one in run(found, 7, begin)]
    assert states == [FINISHED] * 5 + [PRUNED] * 2
    # Not at step 0 or 10, but at the end of the warm-up.
    assert made[5].was_ended and made[5].validation() == {0: 0.1, 10: 0.1, 20: 0.1, 30: 0.1}
    assert not made[0].was_ended
    assert [one.number for one in found.best()] == [0, 1, 2, 3, 4]
    assert "5 finished, 2 given up early, 0 failed" in table(found.told(), found.best(), "HR@1")


def test_a_failed_trial_is_told_so_and_the_others_go_on(tmp_path):
    def begin(number, drawn):
        if number == 1:
            raise UserError("distill.top_h is 20")
        return Fake(0.1 * number, why="out of memory (status 1)" if number == 2 else "")

    found = trials(tmp_path)
    states = [(one.state, one.value, one.reason) for one in run(found, 5, begin, at_once=2)]
    assert states[1:3] == [
        (FAILED, None, "distill.top_h is 20"),
        (FAILED, None, "out of memory (status 1)"),
    ]
    assert [one.number for one in found.best()] == [4, 3, 0]


def test_a_trial_that_was_interrupted_goes_on_with_the_same_values(tmp_path):
    class Stopped(Fake):
        def ended(self):
            raise KeyboardInterrupt

    made = []

    def begin(number, drawn):
        made.append(Stopped(0.0))
        return made[-1]

    found = trials(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(found, 4, begin, at_once=2)
    assert all(one.was_ended for one in made)
    before = [one.drawn for one in found.told()]
    assert [one.state for one in found.told()] == [OPEN] * 2
    with (tmp_path / "search.log").open("a") as log:  # killed while it wrote
        log.write('{"op_code":')
    (tmp_path / "search.log.lock").symlink_to("search.log")
    after = run(trials(tmp_path), 3)
    assert [one.drawn for one in after[:2]] == before
    assert [one.state for one in after] == [FINISHED] * 3


def test_without_optuna_there_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=re.escape("pip install '.[search]'")):
        trials(tmp_path)


def delrec_study(**changes):
    return Study(**{"question": "?", "ranges": RANGES[:2], "metric": "HR@1", **changes})


def test_trials_end_at_the_validation_value_and_share_what_no_range_touches(tmp_path):
    runs = TrialRuns(tmp_path, make_space(delrec_study(ranges=RANGES[:1]), tiny_base()))
    job, common = runs.common()
    assert job.stages == ("prepare", "pretrain", "teach", "distill")
    one, other = (runs.begin(number, {RATE: 1e-3 / (1 + number)}) for number in (0, 1))
    assert one._job.stages == ("tune",)
    assert one._job.keys != other._job.keys
    folder = tmp_path / "runs" / "trial-1-0"
    links = {link.name: link.resolve() for link in folder.iterdir() if link.is_symlink()}
    assert set(links) == {"data", "lm", "teacher", "prompt", "adapter"}  # no records, no report
    assert all(links[name] == (common.root / name).resolve() for name in links if name != "adapter")
    assert other._ws.experiment.tune.controls == ()


def test_a_study_that_cannot_be_searched_is_refused(tmp_path):
    for changes, message in (
        ({"ranges": (), "arms": (Arm("a"),), "reference": "a"}, "--search needs ranges"),
        ({"systems": ("ease",)}, "first system is 'ease', for which validation selects nothing"),
        ({"systems": ("teacher_augmented",)}, "with method=delrec"),
        ({"command": "baseline"}, "the study's command 'baseline'"),
        ({"metric": "HR@5"}, "metric is HR@5, which validation does not measure"),
        ({"ranges": (Range("tune.controls", choices=((), ("none",))),)}, "range tune.controls"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            make_space(delrec_study(**changes), tiny_base())
    file = StudyFile.load(study_file(tmp_path, RANGES_OF_TEACHER))
    with pytest.raises(UserError, match="has ranges and no arms: give --search=N"):
        open_study(file, tiny_base(), tmp_path / "s")
    assert "for each trial: teach" in told(file, tiny_base(), total=3)


def test_the_process_of_a_trial_is_started_again_or_ended(tmp_path, monkeypatch):
    """Another process held the workdir, then this one is given up."""
    codes = iter(
        [f"raise SystemExit({BUSY})", "import time; time.sleep(600)", "raise SystemExit(1)"]
    )
    started = []

    def begin(root, job):
        started.append(subprocess.Popen([sys.executable, "-c", next(codes)]))
        return started[-1]

    monkeypatch.setattr(processes, "start", begin)
    runs = TrialRuns(tmp_path, make_space(delrec_study(), tiny_base()))
    one, same = (runs.begin(number, {RATE: 1e-3, LENGTH: 4}) for number in (0, 1))
    assert one.ended() is None and started[0].wait() == BUSY
    assert one.ended() is None  # reaped
    assert one.ended() is None and len(started) == 2
    assert same.ended() is None and len(started) == 2  # the same stages: it waits
    one.end()
    started[1].wait()
    assert one.ended() == ""
    assert same.ended() is None and len(started) == 3
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "trial-1-0.log").write_text("delrec: no room\n")
    started[2].wait()
    assert same.ended() == f"delrec: no room (status 1, {tmp_path}/logs/trial-1-0.log)"


def values(experiment):
    """All settings by dotted key."""
    return leaf_values(to_dict(experiment))


def test_the_best_trial_is_a_config_of_all_its_settings(tmp_path, monkeypatch):
    arms = (Arm("room", {"prompts.max_tokens": 100}),)
    space = make_space(delrec_study(arms=arms, reference="room", seeds=(3,)), tiny_base())
    drawn = {RATE: 0.00123, LENGTH: 7}
    trial = space.run("trial-0", drawn).experiment
    wanted = space.run("trial-0", drawn, whole=True).experiment
    monkeypatch.chdir(tmp_path)
    base = ROOT / "configs" / "storefront.py"
    path = Path("search") / "best.py"
    write_best(path, "The best of 2 trials.", (base, "no_anchor"), wanted)
    for folder, place in ((tmp_path, path), (tmp_path / "search", Path("best.py"))):
        monkeypatch.chdir(folder)
        found = from_config(read_config(place))
        assert values(found) == values(wanted)
    text = (tmp_path / path).read_text()
    assert f"Command: delrec run --config={path} " in text and "'no_anchor'" in text
    assert "\nBASE = '../" in text  # a relative path
    stated = changed(read_config(base, "no_anchor"), wanted)
    assert stated[RATE] == 0.00123 and stated["seed"] == 3 and stated["tune.anchor"] == 1.0
    assert "tune.controls" not in stated and trial.tune.controls == ()
    assert "distill.controls" not in stated and trial.distill.controls == ()


@pytest.mark.parametrize(("base", "best"), [("", "stop"), ("stop", ""), ("stop", "rollback")])
def test_what_is_off_by_default_is_stated_where_it_changes(base, best):
    config = read_config(ROOT / "configs" / "storefront.py")
    config.tune.loop.on_spike = base
    wanted = read_config(ROOT / "configs" / "storefront.py")
    wanted.tune.loop.on_spike = best
    assert changed(config, from_config(wanted)) == {"tune.loop.on_spike": best}


@pytest.mark.slow
def test_a_search_for_a_teacher_trains_once_per_trial_and_ranks_no_test_user(tmp_path):
    path, root = study_file(tmp_path, RANGES_OF_TEACHER), tmp_path / "s"
    for total, stages in ((1, {"prepare": 1, "teach": 1}), (2, {"prepare": 1, "teach": 2})):
        process = start(path, root, f"--search={total}", "--jobs=2")
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert f"{total} trials: {total} finished" in said
        lines = (root / "journal.jsonl").read_text().splitlines()
        found = [re.search(r'"stage": "(\w+)"', line)[1] for line in lines]
        assert {name: found.count(name) for name in found} == stages
    for trial in ("trial-0-0", "trial-1-0"):
        names = {one.name for one in (root / "runs" / trial).rglob("*")}
        names |= {one.name for link in (root / "runs" / trial).iterdir() for one in link.rglob("*")}
        assert {"teacher", "result.json"} <= names
        assert not {"records", "baseline", "report", "records.parquet", "metrics.json"} & names
    before = (root / "best.py").read_text()
    process = start(path, root, "--search=2")
    said, _ = process.communicate()
    assert process.returncode == 0 and "trial-" not in said.split("2 trials")[0]
    assert (root / "best.py").read_text() == before
    best = from_config(read_config(root / "best.py"))
    rate = str(best.teacher.optimizer.learning_rate)
    assert rate in before and best.teacher.sasrec.width == 16  # the flags of the command
    delrec("baseline", f"--config={root / 'best.py'}", f"--workdir={tmp_path / 'best'}")
    assert (tmp_path / "best" / "baseline" / "records.parquet").exists()
