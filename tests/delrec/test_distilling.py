"""Starts of both stages, what is said of lists that have no order, and of tuning that ends too early."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from delrec_jax.config import DistillConfig, default_config, from_config
from delrec_jax.delrec.agreement import agreement_rows, mean_said
from delrec_jax.delrec.prompt_start import RANDOM, PromptStart
from delrec_jax.delrec.systems import TUNED, training_folders
from delrec_jax.delrec.tune import Tuning
from delrec_jax.delrec.tuning_task import _largest_batch

TABLE = jax.random.normal(jax.random.key(0), (30, 4))


@pytest.mark.parametrize("init", ["text", "vocabulary", "normal"])
def test_the_random_control_is_not_the_start_of_the_trained_prompts(init):
    config = replace(DistillConfig(), init=init, length=5)
    start = PromptStart(SimpleNamespace(distill=config), words=(3, 7))
    trained, control = (start.prompt(TABLE, 0, stream) for stream in ("prompt/init", RANDOM))
    assert not np.allclose(trained, control)
    rows = [any(np.array_equal(row, one) for one in TABLE) for row in np.asarray(control)]
    assert all(rows) is (
        init == "vocabulary"
    )  # the control is made of words only where it draws them


def test_lists_that_tie_entirely_say_nothing_of_the_order():
    tau = np.array([0.5, np.nan, 0.1, np.nan, 0.3])
    reading = SimpleNamespace(agreement=np.array([1.0, 0, 1, 0, 1]), kendall_tau=tau)
    users = np.array([0, 0, 1, 2, 2])
    first, second = agreement_rows("distilled", reading, users, seed=0)
    assert (first["users"], second["users"]) == (3, 3)
    assert second["value"] == pytest.approx((0.5 + 0.1 + 0.3) / 3)
    assert mean_said(tau) == pytest.approx(0.3)
    none = SimpleNamespace(agreement=np.ones(2), kendall_tau=np.full(2, np.nan))
    (only,) = agreement_rows("distilled", none, np.arange(2), seed=0)
    assert only["measure"] == first["measure"] and mean_said(none.kendall_tau) == 0


@pytest.mark.parametrize(("best", "warned"), [(8, True), (4, False)])
def test_tuning_that_ends_while_it_improves_is_told(best, warned, capsys):
    config = SimpleNamespace(loop=SimpleNamespace(steps=8), adalora=SimpleNamespace(init_rank=2))
    told = SimpleNamespace(_ws=SimpleNamespace(experiment=SimpleNamespace(tune=config)))
    result = {"best_step": best, "steps": 8, "ranks": {"q": 2}}
    Tuning._tell(told, "none", range(3), result)
    said = capsys.readouterr().err
    assert f"selected step {best} of 8" in said
    assert ("adapter none was still improving when tune.loop.steps ended" in said) == warned


def test_systems_that_begin_with_distilled_scalars_say_where_these_were_trained(tmp_path):
    experiment = SimpleNamespace(lm=SimpleNamespace(verbalizer="embedding"))
    ws = SimpleNamespace(folder=lambda stage: tmp_path / stage, experiment=experiment)
    began = {name: training_folders(ws, name)[0].name for name in TUNED}
    assert began == {
        "lm_tuned_no_prompt": "readout",
        "lm_tuned_random_prompt": "readout",
        "lm_tuned_shuffled_prompt": "shuffled",
        "lm_tuned_true_prompt": "true",
        "delrec": "distilled",
    }
    assert training_folders(ws, "lm_readout")[0].name == "readout"
    assert training_folders(ws, "lm_random_prompt") == training_folders(ws, "lm_words") == ()


@pytest.mark.parametrize("reads_owners", [True, False])
@pytest.mark.parametrize("loss_over", ["catalogue", "candidates"])
def test_a_planned_batch_of_stage_2_has_the_arrays_of_a_real_one(reads_owners, loss_over):
    config = default_config()
    config.tune.update(loss_over=loss_over, num_candidates=7, batch_size=3)
    config.prompts.max_tokens = 64
    ranker = SimpleNamespace(verbalizer=SimpleNamespace(reads_owners=reads_owners))
    planned = _largest_batch(from_config(config), ranker)
    assert planned.ids.shape == (3, 64)
    assert (planned.owners is not None) == reads_owners
    assert (planned.guides, planned.history) == (None, None)
    shapes = [planned.label.shape] if loss_over == "catalogue" else [planned.candidates.shape]
    assert shapes == [(3,) if loss_over == "catalogue" else (3, 7)]
