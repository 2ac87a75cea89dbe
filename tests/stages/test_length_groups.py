"""`group_by_length` of each training stage reaches its batches; tests/data/test_pipeline.py has what these do with it."""

from dataclasses import replace
from unittest.mock import MagicMock, patch

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
    return batches.call_args.kwargs


def test_prompts(experiment):
    training = MagicMock(_ws=MagicMock(experiment=experiment))
    found = asked(distill, lambda: distill.PromptTraining.fit(training, "distilled", MagicMock()))
    assert found["group"] == GROUPS["distill"]


def test_adapters(experiment):
    training = MagicMock(_ws=MagicMock(experiment=experiment), _held={}, _training_teacher=None)
    with patch.multiple(tune, systems=MagicMock(), next_item_examples=MagicMock()):
        found = asked(tune, lambda: tune.Tuning.fit(training, "distilled"))
    assert found["group"] == GROUPS["tune"]


def test_preferences(experiment):
    training = MagicMock(_config=experiment.parse)
    training._parts.return_value = {"train": [0], "valid": []}
    with patch.multiple(parse, _targets=MagicMock(), _unit=MagicMock()):
        found = asked(parse, lambda: parse.Parsing.fit(training, MagicMock(), 0))
    assert found["group"] == GROUPS["parse"]
