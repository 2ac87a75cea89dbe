"""Sentence encoders are read as the config says, and a folder that says otherwise about its encoder is told."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_bert import RAW, write_bert

from delrec_jax.errors import UserError
from delrec_jax.language import hub
from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.bert_files import load, read_config
from delrec_jax.language.bert_model import BertModel
from delrec_jax.training.sharding import MeshConfig, make_layout
from delrec_jax.workdir.base_model import _trained_pooling
from delrec_jax.workdir.title_vectors import TitleEncoder


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({}, ""),
        ({"pooling_mode_max_tokens": True}, ""),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "first"),
    ],
)
def test_how_the_authors_read_it_is_known(tmp_path, said, pooling):
    assert _trained_pooling(tmp_path) == "", "nothing says how"
    path = tmp_path / hub.POOLING_FILE
    path.parent.mkdir()
    path.write_text(json.dumps(said))
    assert _trained_pooling(tmp_path) == pooling
    assert hub.POOLING_FILE in hub.FETCHED
    path.write_text("{")
    with pytest.raises(UserError, match="delete it"):
        _trained_pooling(tmp_path)


def test_titles_are_read_by_their_first_state_or_by_the_mean(tmp_path):
    directory = write_bert(tmp_path / "model", RAW)
    titles = [np.array([2, 7, 9, 3], np.int32), np.array([2, 30, 3], np.int32)]
    found = {}
    for pooling in ("mean", "first"):
        model = BertModel(replace(read_config(directory), pooling=pooling))
        params = load(directory, model.config)
        encoder = TitleEncoder(model, make_layout(MeshConfig(), model.axes_of), titles)
        found[pooling] = encoder.digest
        states = [np.asarray(model.encode(params, title[None])[0][0]) for title in titles]
        expected = [rows[0] if pooling == "first" else rows.mean(0) for rows in states]
        np.testing.assert_allclose(encoder(params), expected, atol=1e-5)
    assert found["mean"] != found["first"], (
        "vectors of one pooling are stored under the other's key"
    )


def test_an_unknown_pooling_is_refused():
    with pytest.raises(UserError, match=r"lm\.bert\.pooling is 'max': use one of mean, first"):
        BertConfig(pooling="max")
