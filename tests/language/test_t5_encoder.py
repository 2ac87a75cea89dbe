"""T5's encoder alone (`lm.read=encoder`): the same states from a part of the files, and nothing of the decoder in memory."""

import json
from dataclasses import replace
from math import prod
from unittest import mock

import jax
import numpy as np
import pytest

from delrec_jax.config.language import LMConfig
from delrec_jax.errors import UserError
from delrec_jax.language import weights
from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.families import find_family
from delrec_jax.language.family import AnsweringModel, answering
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_files import export_model, read_config
from delrec_jax.language.t5_model import T5Encoder
from delrec_jax.language.t5_shapes import FLAN_T5

IDS = np.array([[5, 9, 30, 7, 1, 0, 0], [3, 40, 41, 2, 30, 6, 1]], np.int32)
PROMPT = np.random.default_rng(1).normal(size=(2, 12)).astype(np.float32)
FAMILY = find_family("t5")


def settings(directory, read="encoder", **running):
    return LMConfig(weights=str(directory), read=read, t5=replace(T5Config(), **running))


def loaded(directory, model):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return FAMILY.load(directory, model, jax.tree.map(lambda _: device, model.param_shapes()))


def encoder_of(directory, **running):
    chosen = settings(directory, **running)
    model = FAMILY.model(chosen, directory=directory, vocab_size=30)
    return model, loaded(directory, model)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_encoder_gives_the_states_of_the_whole(either, tmp_path, scan_layers):
    config, params = either
    export_model(params, config, tmp_path / "whole")
    whole = FAMILY.model(settings(tmp_path, "answers"), directory=tmp_path / "whole", vocab_size=30)
    assert isinstance(whole, AnsweringModel)
    read, original = [], weights._load_leaf
    with mock.patch.object(
        weights, "_load_leaf", lambda leaf, *rest: read.append(leaf) or original(leaf, *rest)
    ):
        model, found = encoder_of(tmp_path / "whole", scan_layers=scan_layers)
    assert {leaf.path[0] for leaf in read} == {*found} == {"shared", "encoder"}
    states, mask = model.encode(found, IDS, prompt=PROMPT)
    expected, _ = whole.encode(params, IDS, prompt=PROMPT)
    np.testing.assert_allclose(states[mask], expected[mask], atol=1e-5)
    # Written apart, it is read again; `lm.read=answers` then names what is missing.
    FAMILY.export_model(found, model, tmp_path / "alone")
    raw = json.loads((tmp_path / "alone" / "config.json").read_text())
    assert raw["architectures"] == ["T5EncoderModel"] and not raw["is_encoder_decoder"]
    jax.tree.map(
        np.testing.assert_array_equal,
        encoder_of(tmp_path / "alone", scan_layers=scan_layers)[1],
        found,
    )
    with pytest.raises(UserError, match=r"missing \(decoder"):
        loaded(tmp_path / "alone", replace(whole, config=read_config(tmp_path / "alone")))


def test_it_answers_nothing_and_adapts_no_decoder(gated, tmp_path):
    export_model(gated[1], gated[0], tmp_path / "m")
    model, params = encoder_of(tmp_path / "m")
    assert not isinstance(model, AnsweringModel)
    with pytest.raises(UserError, match="T5's encoder alone, d_model 12, 1 layers only encodes"):
        answering(model, "this", remedy="set it")
    with pytest.raises(UserError, match=r"\['EncDecAttention/q'\] match no projection"):
        init_adapters(params, AdaLoRAConfig(targets=("q", "EncDecAttention/q")), jax.random.key(0))


def test_a_plan_counts_the_encoder_alone():
    model, _ = FAMILY.planned(LMConfig(weights="google/flan-t5-small", read="encoder"))
    assert isinstance(model, T5Encoder) and model.sizes.decoder_blocks == 0
    count = sum(prod(leaf.shape) for leaf in jax.tree.leaves(model.param_shapes()))
    block = 4 * 512 * 384 + 3 * 512 * 1024 + 2 * 512
    assert count == 32128 * 512 + 8 * block + 32 * 6 + 512
    assert FLAN_T5["google/flan-t5-small"].num_decoder_layers == 8


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"read": "decoder"}, r"lm\.read is 'decoder': use one of answers, encoder"),
        ({"read": "encoder"}, r"lm\.read=encoder, but lm\.weights is empty"),
        (
            {"t5": T5Config(adapters=AdaLoRAConfig())},
            r"lm\.t5\.adapters is set, which no stage reads",
        ),
        ({"vocab_size": 35}, r"lm\.vocab_size is 35: it must be above lm\.sentinels \+ 3 = 35"),
        ({"t5": T5Config(num_decoder_layers=0)}, r"lm\.t5\.num_decoder_layers is 0: use at least"),
    ],
)
def test_settings_that_contradict_themselves(keys, message):
    with pytest.raises(UserError, match=message):
        LMConfig(**keys)


@pytest.mark.parametrize("attention", ["xla", "cudnn"])
@pytest.mark.parametrize(
    ("family", "name", "shape", "decoder"),
    [("t5", "google/flan-t5-small", T5Config, 8), ("bert", "intfloat/e5-small-v2", BertConfig, 0)],
)
def test_a_plan_counts_the_fused_kernel_and_compiles_without(
    family, name, shape, decoder, attention
):
    running = {family: shape(dtype="bfloat16", attention=attention)}
    model, _ = find_family(family).planned(LMConfig(family=family, weights=name, **running))
    fused, sizes = attention == "cudnn", model.sizes
    assert model.config.attention == "xla" and sizes.fused is fused
    assert model.running.endswith(", attention cudnn") is fused
    assert type(model)(replace(model.config, attention=attention)).sizes.fused is fused
    assert (sizes.activation_bytes, sizes.weight_bytes, sizes.opening) == (2, 4, 1)
    assert sizes.decoder_blocks == decoder
