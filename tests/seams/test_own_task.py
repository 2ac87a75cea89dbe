"""A task of stage 1 from a file of the user's: its loss falls, a killed run goes on, the plan and the prompts show it."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from seam_runs import HERE, QUICK, copy_before, kill_after, write_config
from tiny_storefront import delrec, open_workspace
from toy_task import FIRST_ITEM

from delrec_jax.config import DistillConfig, Experiment, TaskShare
from delrec_jax.data.templates import HISTORY, PATTERN, Field
from delrec_jax.delrec.material import PromptExample
from delrec_jax.delrec.prompt_examples import make_examples, source_rows
from delrec_jax.delrec.prompt_tasks import _check_template, check_example, prompt_tasks
from delrec_jax.delrec.rows import Rows
from delrec_jax.errors import UserError
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.stages.inputs import Inputs
from delrec_jax.teachers.lists import TeacherLists

BAG = f"{HERE / 'toy_family.py'}:BAG"
MASK = 3
TASK = f"{HERE / 'toy_task.py'}:FIRST_ITEM"
STEPS = (
    *QUICK,
    "--config.distill.loop.steps=30",
    "--config.distill.loop.evaluate_every=3",
    "--config.distill.loop.checkpoint_every=10",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir whose prompts have learned three tasks, and the flag of its config."""
    folder = tmp_path_factory.mktemp("task")
    config = write_config(
        folder / "config.py",
        lm__family=BAG,
        tune__adalora__targets=("mix",),
        distill__tasks__first={"share": 0.5, "weight": 0.5, "code": TASK},
    )
    for stage in ("prepare", "pretrain", "teach", "distill"):
        delrec(stage, config, f"--workdir={folder / 'run'}", *STEPS)
    return folder / "run", config


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ((*HISTORY, *PATTERN, ". First :"), "has 0 times Field.MASK: it must be there once"),
        ((*PATTERN, ". First :", Field.MASK), "has 0 times Field.HISTORY"),
        ((*HISTORY, *HISTORY, *PATTERN, Field.MASK), "has 2 times Field.HISTORY"),
        ((*HISTORY, *PATTERN, ". First {thing} :", Field.MASK), "has {thing}: use one of {noun}"),
    ],
)
def test_a_template_that_asks_nothing_is_refused(template, said):
    with pytest.raises(UserError, match=re.escape(said)):
        _check_template("distill.tasks.first.code", template)
    _check_template("distill.tasks.first.code", FIRST_ITEM.template)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: replace(one, targets=2 * one.targets), "sum to 2: they are probabilities"),
        (lambda one: replace(one, candidates=one.candidates[1:]), "has candidates (19,)"),
        (lambda one: replace(one, ids=one.ids[one.ids != MASK]), "has no MASK"),
    ],
)
def test_examples_that_mean_nothing_are_refused(change, said):
    config = Experiment()
    count = config.distill.num_candidates
    targets = np.eye(count, dtype=np.float32)[0]
    good = PromptExample(
        ids=np.array([5, MASK], np.int32),
        candidates=np.arange(count, dtype=np.int32),
        targets=targets,
        task=np.int32(0),
    )
    material = SimpleNamespace(config=config, pieces=SimpleNamespace(sentinel=MASK))
    check_example(FIRST_ITEM, good, material)
    with pytest.raises(UserError, match=re.escape(said)):
        check_example(FIRST_ITEM, change(good), material)


def test_its_loss_is_measured_weighted_and_falls(run):
    lines = (run[0] / "prompt" / "distilled" / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["step"] > 0]
    assert {"loss/ta", "loss/rps", "loss/first"} <= set(rows[0])
    assert rows[0]["weight/first"] == pytest.approx(0.5 / 1.5)
    early, late = (
        np.mean([row["loss"] for row in part]) for part in (rows[: len(rows) // 2], rows[-2:])
    )
    assert late < early


def test_a_killed_run_ends_as_the_whole_one(run, tmp_path):
    whole, config = run
    copy_before(whole, tmp_path / "run", "prompt")
    flags = ("distill", config, f"--workdir={tmp_path / 'run'}", *STEPS)
    kill_after(15, *flags)
    assert not (tmp_path / "run" / "prompt" / "distilled" / "result.safetensors").exists()
    delrec(*flags)
    results = [
        (place / "prompt" / "distilled" / "result.safetensors").read_bytes()
        for place in (whole, tmp_path / "run")
    ]
    assert results[0] == results[1]


def test_the_plan_compiles_it(run):
    experiment = open_workspace(run[0]).experiment
    assert [task.name for task in prompt_tasks(experiment)] == ["ta", "rps", "first"]
    tasks = planned_tasks(experiment, jax.devices()[:1], Assumed(items=40, title_tokens=4))
    (stage_one,) = (task for task in tasks if task.stage == "distill")
    metrics = jax.eval_shape(
        stage_one.gradients,
        stage_one.state.params,
        stage_one.frozen,
        stage_one.batch,
        jax.eval_shape(lambda: jax.random.key(0)),
    )[1]
    assert "loss/first" in metrics


def test_the_prompts_show_it(run, capsys):
    delrec("prompts", run[1], f"--workdir={run[0]}", *STEPS, "--n=2")
    shown = capsys.readouterr().out
    assert "== First item:" in shown and "The first of all items was" in shown


@pytest.fixture
def own(run, tmp_path):
    """A copy of the run whose task is a file of its own, what to say to a command, and the file."""
    file, workdir = tmp_path / "task.py", tmp_path / "run"
    shutil.copy(TASK.removesuffix(":FIRST_ITEM"), file)
    config = write_config(
        tmp_path / "config.py",
        lm__family=BAG,
        tune__adalora__targets=("mix",),
        distill__tasks__first={"share": 0.5, "weight": 0.5, "code": f"{file}:FIRST_ITEM"},
    )
    copy_before(run[0], workdir, "lm", "prompt")
    flags = (config, f"--workdir={workdir}", *STEPS)
    for stage in ("pretrain", "distill"):
        delrec(stage, *flags, "--update")
    return flags, file


def forget_plugins():
    """As another process, which has loaded nothing yet."""
    for name in [name for name in sys.modules if name.startswith("delrec_plugin_")]:
        del sys.modules[name]


def test_an_edited_file_makes_the_stages_anew_that_read_it(own, capsys):
    flags, file = own
    delrec("distill", *flags)
    assert "distill: finished before" in "".join(capsys.readouterr())
    file.write_text(file.read_text() + "\n# edited\n")
    delrec("distill", *flags)  # this process has loaded the file as it was
    assert "distill: finished before" in "".join(capsys.readouterr())
    forget_plugins()
    for stage in ("teach", "pretrain", "distill"):
        delrec(stage, *flags)
    said = "".join(capsys.readouterr())
    assert "teach: finished before" in said
    for stage in ("pretrain", "distill"):
        assert f"{stage}: its settings, a file of yours or an earlier stage have changed" in said


def test_a_lost_file_is_named_and_nothing_is_lost(own, capsys):
    flags, file = own
    file.unlink()
    forget_plugins()
    with pytest.raises(SystemExit):
        delrec("distill", *flags)
    assert f"there is no file {file}" in capsys.readouterr().err
    workdir = Path(flags[1].removeprefix("--workdir="))
    assert (workdir / "prompt" / "distilled" / "result.safetensors").exists()


def test_a_task_that_is_gone_from_the_config_is_a_change(own, tmp_path, capsys):
    flags, _ = own
    without = write_config(tmp_path / "without.py", lm__family=BAG, tune__adalora__targets=("mix",))
    with pytest.raises(SystemExit):
        delrec("distill", without, *flags[1:])
    assert "distill.tasks.first.share (0.5 there, None now)" in capsys.readouterr().err


def test_tasks_that_nobody_can_be_asked_are_refused(run):
    ws = open_workspace(run[0])
    config = ws.experiment
    tasks = {**config.distill.tasks, "rps": TaskShare(0, 1), "ta": TaskShare(0, 1)}
    config = replace(config, distill=replace(config.distill, tasks=tasks))
    inputs = Inputs(ws)
    users = inputs.data.split.training_users
    rows = source_rows(config, inputs.data.split, users, "teacher")
    lists = TeacherLists(np.zeros((len(rows.users), 8)), np.zeros((len(rows.users), 8)))
    examples = make_examples(config, inputs.data, inputs.language, users, "teacher", lists)
    nowhere = replace(
        examples, material=replace(examples.material, rows=Rows(rows.users, rows.ends * 0))
    )
    with pytest.raises(UserError, match="none of the tasks with a share can be asked"):
        nowhere.example(0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("first", "", r"distill\.tasks is 'first': use one of ta, rps, or FILE\.py:NAME"),
        ("second", TASK, r"its task is called 'first', not 'second'"),
        ("lsr", TASK, r"distill\.tasks\.lsr: the text of stage 2 has this name"),
        (
            "first",
            f"{HERE / 'toy_family.py'}:BAG",
            "which lacks title, template, positions, example",
        ),
        ("first", TASK.replace("FIRST", "LAST"), "has no 'LAST_ITEM'"),
        ("first", TASK.replace("FIRST_ITEM", "FirstItem"), "a class: name an instance of it"),
    ],
)
def test_what_is_no_task_is_refused(name, code, message):
    tasks = {"rps": TaskShare(1, 1), name: TaskShare(1, 1, code)}
    with pytest.raises(UserError, match=message):
        prompt_tasks(Experiment(distill=DistillConfig(tasks=tasks)))
