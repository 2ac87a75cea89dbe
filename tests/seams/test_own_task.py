"""A task of stage 1 from a file of the user's: its loss falls, a killed run goes on, the plan and the prompts show it."""

import json
import shutil
from dataclasses import replace

import jax
import pytest
from seam_runs import HERE, QUICK, copy_before, kill_after, write_config
from shared_runs import quick_compiler
from tiny_storefront import delrec, open_workspace

from delrec_jax.config import DistillConfig, Experiment, TaskShare
from delrec_jax.delrec.prompt_tasks import prompt_tasks
from delrec_jax.errors import UserError
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.steps import planned_steps

BAG = f"{HERE / 'toy_family.py'}:BAG"
TASK = f"{HERE / 'toy_task.py'}:FIRST_ITEM"
STEPS = (
    *QUICK,
    "--config.distill.loop.steps=30",
    "--config.distill.loop.evaluate_every=30",
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
    with quick_compiler():
        for stage in ("prepare", "pretrain", "teach", "distill"):
            delrec(stage, config, f"--workdir={folder / 'run'}", *STEPS)
        yield folder / "run", config


def test_its_loss_is_measured_weighted_and_falls(run):
    lines = (run[0] / "prompt" / "distilled" / "metrics.jsonl").read_text().splitlines()
    first, last = (json.loads(lines[place]) for place in (0, -1))
    assert {"loss/ta", "loss/rps", "loss/first"} <= set(last)
    assert last["weight/first"] == pytest.approx(0.5 / 1.5)
    assert last["valid/selection"] >= first["valid/selection"] and last["loss"] < 2.2


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
    tasks = planned_steps(experiment, jax.devices()[:1], Assumed(items=40, title_tokens=4))
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
    assert "== first:" in shown and "The first of all items was" in shown


def test_an_edited_file_makes_its_stage_anew(run, tmp_path):
    own = tmp_path / "task.py"
    shutil.copy(TASK.removesuffix(":FIRST_ITEM"), own)
    ws = open_workspace(run[0])
    distill = ws.experiment.distill
    tasks = {**distill.tasks, "first": replace(distill.tasks["first"], code=f"{own}:FIRST_ITEM")}
    ws._settings["distill"]["tasks"]["first"]["code"] = tasks["first"].code
    before = ws.fingerprint("distill"), ws.fingerprint("teach")
    own.write_text(own.read_text() + "\n# edited\n")
    after = ws.fingerprint("distill"), ws.fingerprint("teach")
    assert before[0] != after[0] and before[1] == after[1]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("first", "", r"distill\.tasks is 'first': use one of ta, rps, or FILE\.py:NAME"),
        ("second", TASK, r"its task is called 'first', not 'second'"),
        ("first", TASK.replace("FIRST", "LAST"), "has no 'LAST_ITEM'"),
        ("first", TASK.replace("FIRST_ITEM", "FirstItem"), "a class: name an object of it"),
    ],
)
def test_what_is_no_task_is_refused(name, code, message):
    tasks = {"rps": TaskShare(1, 1), name: TaskShare(1, 1, code)}
    with pytest.raises(UserError, match=message):
        prompt_tasks(Experiment(distill=DistillConfig(tasks=tasks)))
