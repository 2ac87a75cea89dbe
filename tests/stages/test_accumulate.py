"""`optimizer.accumulate` in both stages: a batch in two parts takes the steps of the whole batch."""

import shutil
from dataclasses import replace
from functools import partial

import chex
import pytest
from tiny_storefront import open_workspace
from watching import FirstSteps

from delrec_jax.delrec import distill, tune
from delrec_jax.delrec.prompt_examples import make_examples
from delrec_jax.delrec.rows import user_parts
from delrec_jax.errors import UserError
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training import task
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.recommenders import list_source
from delrec_jax.workdir.workspace import Workspace

STEPS = 2


@pytest.fixture(scope="module")
def workdir(tiny_run, tmp_path_factory):
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("accumulate") / "run")


def opened(workdir, accumulate):
    """The tiny run with its batches in parts, and nothing drawn by dropout."""
    before = open_workspace(workdir).experiment
    assert before.lm.t5.dropout_rate == 0

    def in_parts(stage):
        return replace(stage, optimizer=replace(stage.optimizer, accumulate=accumulate))

    tuned = in_parts(before.tune)
    tuned = replace(tuned, adalora=replace(tuned.adalora, dropout=0.0))
    changed = replace(before, distill=in_parts(before.distill), tune=tuned)
    return Workspace(workdir, changed, update=True)


def distill_steps(ws, data, language, monkeypatch):
    watch = FirstSteps(STEPS)
    monkeypatch.setattr(task, "fit", watch.fit)
    config = ws.experiment
    users = user_parts(data.split.training_users, config.distill, config.seed)["train"]
    lists = distill.teacher_lists(ws, data, users, "train", lambda: list_source(ws, data))
    examples = make_examples(config, data, language, users, "teacher", lists)
    make = partial(make_examples, config, data, language)
    training = distill.PromptTraining(ws, language, examples, make=make, guides=None)
    training.fit("distilled", examples)
    return watch


def tune_steps(ws, data, language, monkeypatch):
    watch = FirstSteps(STEPS)
    monkeypatch.setattr(task, "fit", watch.fit)
    tune.Tuning(ws, data, language).fit("distilled")
    return watch


@pytest.mark.parametrize("steps", [distill_steps, tune_steps])
def test_two_parts_take_the_steps_of_the_whole_batch(workdir, steps, monkeypatch):
    found = []
    for accumulate in (1, 2):
        ws = opened(workdir, accumulate)
        data = load_data(ws)
        found.append(steps(ws, data, Inputs(ws).language, monkeypatch))
    whole, parts = found
    for a, b in zip(whole.metrics, parts.metrics, strict=True):
        assert a == pytest.approx(b, rel=1e-5) and a["gradient_norm"] > 1e-4
    assert whole.metrics[0]["loss"] != whole.metrics[1]["loss"]
    # Adam divides by the gradient's size, so where it is nearly 0 rounding shows: a hundredth of a step of 0.1.
    chex.assert_trees_all_close(parts.params, whole.params, rtol=0, atol=1e-3)


@pytest.mark.parametrize("steps", [distill_steps, tune_steps])
def test_parts_must_divide_the_batch(workdir, steps, monkeypatch):
    ws = opened(workdir, 3)
    data = load_data(ws)
    with pytest.raises(UserError, match=r"accumulate is 3, but a batch has 16 rows"):
        steps(ws, data, Inputs(ws).language, monkeypatch)
