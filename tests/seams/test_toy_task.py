"""A task of stage 1 from a file of the user's: its loss falls, a stopped run goes on, the plan and the prompts show it."""

import jax
import pytest
from forks import HERE, copy_stages, logged, run, run_stopped_at, write_config
from tiny_storefront import open_workspace

from delrec_jax.delrec.prompt_tasks import prompt_tasks
from delrec_jax.errors import UserError
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.steps import planned_steps

STEPS = ("--config.distill.loop.steps=40", "--config.distill.loop.evaluate_every=20")
TASK = HERE / "toy_task.py"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config(
        tmp_path_factory.mktemp("fork"),
        "config.distill.tasks.first = dict("
        f"share=0.5, weight=0.5, code={str(TASK) + ':FirstItem'!r})",
    )


@pytest.fixture(scope="module")
def begun(tiny_run, config, tmp_path_factory):
    """A workdir in which everything before stage 1 is done."""
    workdir = tmp_path_factory.mktemp("task") / "run"
    copy_stages(tiny_run, workdir, "data", "teacher")
    run("pretrain", config, workdir, *STEPS)
    return workdir


@pytest.fixture(scope="module")
def finished(begun, config):
    run("distill", config, begun, *STEPS)
    return begun


def test_its_loss_is_measured_and_falls(finished):
    rows = logged(finished / "prompt" / "distilled")
    assert {"loss/ta", "loss/rps", "loss/first"} <= set(rows[0])
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[0]["weight/first"] == pytest.approx(0.5 / 1.5)


def test_a_stopped_run_goes_on_to_the_same_prompt(
    finished, config, tiny_run, tmp_path, monkeypatch
):
    other = tmp_path / "other"
    copy_stages(finished, other, "data", "teacher", "lm")
    run_stopped_at(25, monkeypatch, "distill", config, other, *STEPS)
    assert not (other / "prompt" / "distilled" / "result.safetensors").exists()
    run("distill", config, other, *STEPS)
    results = [
        (workdir / "prompt" / "distilled" / "result.safetensors").read_bytes()
        for workdir in (finished, other)
    ]
    assert results[0] == results[1]


def test_the_plan_and_the_prompts_show_it(finished, config, capsys):
    experiment = open_workspace(finished).experiment
    tasks = planned_steps(experiment, jax.devices()[:1], Assumed(items=40, title_tokens=4))
    assert [task.name for task in prompt_tasks(experiment)] == ["ta", "rps", "first"]
    distill = next(task for task in tasks if task.stage == "distill")
    metrics = jax.eval_shape(
        distill.gradients,
        distill.state.params,
        distill.frozen,
        distill.batch,
        jax.eval_shape(lambda: jax.random.key(0)),
    )[1]
    assert "loss/first" in metrics
    run("prompts", config, finished, *STEPS, "--n=1")
    shown = capsys.readouterr().out
    assert "== first:" in shown and "The first of all items was" in shown.replace(" :", "")


def test_an_edited_task_makes_its_stage_anew(finished, tmp_path):
    ws = open_workspace(finished)
    assert ws.finished("distill")
    before = TASK.read_text()
    try:
        TASK.write_text(before + "\n# edited\n")
        assert not ws.finished("distill") and ws.finished("teach")
    finally:
        TASK.write_text(before)


def test_a_task_under_another_name_is_refused(config, tmp_path):
    code = f"{TASK}:FirstItem"
    path = write_config(tmp_path, f"config.distill.tasks.second = dict(share=1.0, code={code!r})")
    with pytest.raises(SystemExit):
        run("prepare", path, tmp_path / "run")


def test_a_task_without_code_is_refused():
    from delrec_jax.config import DistillConfig, Experiment, TaskShare

    tasks = {"rps": TaskShare(1, 1), "first": TaskShare(1, 1)}
    with pytest.raises(UserError, match=r"distill\.tasks is 'first': use one of ta, rps, or FILE"):
        prompt_tasks(Experiment(distill=DistillConfig(tasks=tasks)))
