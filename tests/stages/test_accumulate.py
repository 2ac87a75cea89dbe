"""`optimizer.accumulate` in both stages: a batch in two parts takes the steps of the whole batch."""

import shutil
from dataclasses import replace

import chex
import pytest
from tiny_storefront import open_workspace
from watching import FirstSteps

from delrec_jax.delrec import distill, prompt_examples, tune
from delrec_jax.errors import UserError
from delrec_jax.workdir import assets
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
    monkeypatch.setattr(distill, "fit", watch.fit)
    users = prompt_examples.user_parts(ws, data)["train"]
    teacher = distill._cached_texts(ws, data, language, users, "train")
    distill._Trainer(ws, language, data, teacher).fit("distilled", teacher)
    return watch


def tune_steps(ws, data, language, monkeypatch):
    watch = FirstSteps(STEPS)
    monkeypatch.setattr(tune, "fit", watch.fit)
    tune._Trainer(ws, language, data).fit("distilled", "distilled", data.split.training_users)
    return watch


@pytest.mark.parametrize("steps", [distill_steps, tune_steps])
def test_two_parts_take_the_steps_of_the_whole_batch(workdir, steps, monkeypatch):
    found = []
    for accumulate in (1, 2):
        ws = opened(workdir, accumulate)
        data = assets.load_data(ws)
        found.append(steps(ws, data, assets.load_language(ws, data), monkeypatch))
    whole, parts = found
    for a, b in zip(whole.metrics, parts.metrics, strict=True):
        assert a == pytest.approx(b, rel=1e-5) and a["gradient_norm"] > 1e-4
    assert whole.metrics[0]["loss"] != whole.metrics[1]["loss"]
    chex.assert_trees_all_close(parts.params, whole.params, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [distill_steps, tune_steps])
def test_parts_must_divide_the_batch(workdir, steps, monkeypatch):
    ws = opened(workdir, 3)
    data = assets.load_data(ws)
    with pytest.raises(UserError, match=r"accumulate is 3, but a batch has 16 rows"):
        steps(ws, data, assets.load_language(ws, data), monkeypatch)
