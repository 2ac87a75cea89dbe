"""Encoders that were trained to be read by the state of `[CLS]` are told: here all are read by the mean of their states."""

import json

import pytest

from delrec_jax.errors import UserError
from delrec_jax.language import hub
from delrec_jax.workdir.base_model import _by_first_state


@pytest.mark.parametrize(
    ("pooling", "told"), [({}, False), ({"pooling_mode_cls_token": True}, True)]
)
def test_a_pooling_by_the_first_token_is_known(tmp_path, pooling, told):
    assert not _by_first_state(tmp_path), "nothing says how"
    path = tmp_path / hub.POOLING_FILE
    path.parent.mkdir()
    path.write_text(json.dumps({"pooling_mode_mean_tokens": not told} | pooling))
    assert _by_first_state(tmp_path) == told
    assert hub.POOLING_FILE in hub.FETCHED
    path.write_text("{")
    with pytest.raises(UserError, match="delete it"):
        _by_first_state(tmp_path)
