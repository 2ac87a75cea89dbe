"""What each training stage asks its batches for: groups by length (tests/data/test_pipeline.py), and of which users."""

from dataclasses import replace
from unittest.mock import MagicMock, patch

import numpy as np
import pytest

from delrec_jax.config import default_config, from_config
from delrec_jax.delrec import distill, tune
from delrec_jax.p2rec import parse

GROUPS = {"distill": 3, "tune": 5, "parse": 7}


class Asked(Exception):
    """Ends a training as it asks for its batches."""


@pytest.fixture(scope="module")
def experiment():
    found = from_config(default_config())
    sections = {
        name: replace(getattr(found, name), group_by_length=group) for name, group in GROUPS.items()
    }
    return replace(found, **sections)


def asked(module, fit):
    """What a training gives to `training_iterator`."""
    iterator = patch.object(module, "training_iterator", side_effect=Asked)
    with iterator as batches, pytest.raises(Asked):
        fit()
    return batches.call_args


def test_prompts(experiment):
    training = MagicMock(_ws=MagicMock(experiment=experiment))
    found = asked(distill, lambda: distill.PromptTraining.fit(training, "distilled", MagicMock()))
    assert found.kwargs["group"] == GROUPS["distill"]


def test_adapters(experiment):
    training = MagicMock(_ws=MagicMock(experiment=experiment), _held={}, _training_teacher=None)
    with patch.multiple(tune, systems=MagicMock(), next_item_examples=MagicMock()):
        found = asked(tune, lambda: tune.Tuning.fit(training, "distilled"))
    assert found.kwargs["group"] == GROUPS["tune"]


def test_preferences(experiment):
    training = MagicMock(_config=experiment.parse)
    training._parts.return_value = {"train": [7, 9], "valid": [3]}
    with patch.multiple(parse, _targets=MagicMock(), _unit=MagicMock()):
        found = asked(parse, lambda: parse.Parsing.fit(training, MagicMock(), 0))
    # Users whose preferences are held out are never drawn.
    draw, count = found.args[:2]
    histories = training._split.train.history
    for index, user in enumerate((7, 9)):
        draw(index, np.random.default_rng(0))
        assert histories.call_args.args == (user,)
    assert count == 2
    assert found.kwargs["group"] == GROUPS["parse"]


@pytest.mark.parametrize(
    ("select_by", "selection"), [("squared_error", -0.2), ("top_category", 0.7)]
)
def test_preferences_are_selected_by_the_measure_asked_for(experiment, select_by, selection):
    training = MagicMock(_config=replace(experiment.parse, select_by=select_by))
    training._measured.return_value = {"squared_error": 0.2, "top_category": 0.7}
    found = parse.Parsing._validator(training, MagicMock())(MagicMock())
    assert found["valid/selection"] == selection and found["valid/squared_error"] == 0.2
