"""What stage 2 begins with: the scalars that stage 1 trained, where the verbalizer has such."""

from types import SimpleNamespace
from unittest import mock

import pytest

from delrec_jax.config import default_config, from_config
from delrec_jax.delrec import files, systems, tune

PARAMS = {"adapters": 1, "readout": {"scale": 1.0, "bias": 0.0}}


def started(name, distilled):
    """Where a verbalizer has a readout of which stage 1 trains these parts; and what was read of stage 1."""
    language = SimpleNamespace(
        ranker=SimpleNamespace(verbalizer=SimpleNamespace(distilled=distilled))
    )
    experiment = SimpleNamespace(seed=0)
    task = SimpleNamespace(start=lambda frozen, seed: {**PARAMS, "readout": {**PARAMS["readout"]}})
    tuning = SimpleNamespace(
        _ws=SimpleNamespace(experiment=experiment), _language=language, task=task
    )
    with mock.patch.object(files, "load_distilled") as load:
        load.return_value = {"readout": {"scale": 2.0}}
        found = tune.Tuning._start(tuning, {}, name)
    return found, [call.args[1] for call in load.call_args_list]


@pytest.mark.parametrize(
    ("name", "read"),
    [("none", "readout"), ("random", "readout"), ("distilled", "distilled"), ("true", "true")],
)
def test_a_readout_begins_as_stage_1_left_it(name, read):
    found, asked = started(name, ("scale",))
    assert asked == [read] and found["readout"] == {"scale": 2.0, "bias": 0.0}
    assert started(name, ()) == (PARAMS, []), "stage 1 trained nothing of it"


@pytest.mark.parametrize(("verbalizer", "before"), [("mean", []), ("embedding", ["readout"])])
def test_the_cost_of_a_tuned_model_is_that_of_what_was_trained_for_it(tmp_path, verbalizer, before):
    config = default_config()
    config.lm.verbalizer = verbalizer
    if verbalizer == "embedding":
        config.lm.update(family="bert", weights="NAME")
    ws = SimpleNamespace(
        experiment=from_config(config),
        folder=lambda stage: tmp_path / {"distill": "prompt"}.get(stage, stage),
    )
    *began, own = systems.training_folders(ws, "lm_tuned_no_prompt")
    assert [folder.name for folder in began] == before and own.name == "none"
    assert [f.name for f in systems.training_folders(ws, "delrec")] == ["distilled", "distilled"]
