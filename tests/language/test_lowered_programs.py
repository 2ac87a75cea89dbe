"""Programs lowered for accelerators that this machine lacks: what attention holds, what is exact, what is recomputed."""

import re
from dataclasses import replace
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from tiny_bert import TINY as TINY_BERT

from delrec_jax import prng
from delrec_jax.dropout import dropped
from delrec_jax.language.adalora import init_adapters, orthogonality_penalty
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.bert_model import BertModel
from delrec_jax.language.embedding_config import EmbeddingConfig
from delrec_jax.language.embedding_scoring import Embedding
from delrec_jax.language.index_scoring import INDEX
from delrec_jax.language.mean_scoring import MEAN
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.sequence_scoring import SEQUENCE
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_answers import answer_states, encoded_texts
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_model import T5Model

ROWS, TOKENS, HEADS, ANSWERS = 3, 16, 2, 10
CONFIG = T5Config(
    vocab_size=20,
    d_model=24,
    d_kv=8,
    d_ff=20,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=HEADS,
    dtype="bfloat16",
    scan_layers=True,
    attention="cudnn",
    adapters=AdaLoRAConfig(init_rank=2, target_rank=1),
)
TEXTS = jax.ShapeDtypeStruct((ROWS, TOKENS), jnp.int32)


@pytest.fixture(autouse=True)
def with_cudnn():
    """As if cuDNN were installed; it is not called."""
    with mock.patch.object(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200):
        yield


def lowered(function, *shapes, platform="cuda"):
    return jax.jit(function).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()


def kernels(text, name):
    """The results of each call of a kernel of cuDNN."""
    calls = [line for line in text.splitlines() if re.search(rf"@__cudnn\$fmha\w*{name}\(", line)]
    return [re.findall(r"tensor<(\w+)>", line.rsplit(" -> ", 1)[1]) for line in calls]


def shapes_of(config):
    ids = jnp.ones((1, 2), jnp.int32)
    params = jax.eval_shape(T5(replace(config, attention="xla")).init, jax.random.key(0), ids, ids)
    params = params["params"]
    make = partial(init_adapters, config=CONFIG.adapters, key=jax.random.key(0))
    return params, jax.eval_shape(make, params)


def step(config, of):
    """The gradient of adapters (as stage 2 computes it) or of the base (as pre-training does), lowered for CUDA."""

    def loss(trained, held, ids):
        params, adapters = (held, trained) if of == "adapters" else (trained, held)
        states, mask = encoded_texts(T5(config), params, ids, adapters=adapters)
        return jnp.where(mask[..., None], states, 0).astype(jnp.float32).sum()

    params, adapters = shapes_of(config)
    both = (adapters, params) if of == "adapters" else (params, adapters)
    return lowered(jax.grad(loss), *both, TEXTS)


WEIGHTS = f"tensor<{ROWS}x{HEADS}x{TOKENS}x{TOKENS}x"
BIAS = f"1x{HEADS}x{TOKENS}x{TOKENS}xbf16"


@pytest.mark.parametrize(
    ("remat", "scan_layers"), [("none", True), ("dots", True), ("full", True), ("dots", False)]
)
def test_fused_attention_holds_no_weights_and_writes_no_gradient_of_a_frozen_bias(
    remat, scan_layers
):
    layers = 1 if scan_layers else CONFIG.num_layers
    text = step(replace(CONFIG, remat=remat, scan_layers=scan_layers), "adapters")
    assert WEIGHTS not in text
    backward = kernels(text, "Backward")
    assert len(backward) == layers
    assert all(len(results) == 4 and BIAS not in results for results in backward)
    # Recomputing everything calls the kernel once more per block; `dots` keeps what it gave.
    assert len(kernels(text, "Softmax")) == layers * (2 if remat == "full" else 1)


def test_a_bias_that_trains_gets_its_gradient():
    (results,) = kernels(step(CONFIG, "base"), "Backward")
    assert len(results) == 5 and results[3] == BIAS


def test_attention_by_xla_holds_weights():
    """Else the tests above could not fail."""
    assert WEIGHTS in step(replace(CONFIG, attention="xla"), "adapters")


def test_an_odd_number_of_tokens_attends_by_xla():
    params, adapters = shapes_of(CONFIG)
    encode = partial(encoded_texts, T5(CONFIG))
    odd = jax.ShapeDtypeStruct((ROWS, TOKENS + 1), jnp.int32)
    text = lowered(lambda p, a, ids: encode(p, ids, adapters=a), params, adapters, odd)
    assert not kernels(text, "Softmax")


@pytest.mark.parametrize(("length", "fused"), [(4, True), (1, False)])
def test_cross_attention_of_long_answers_is_fused(length, fused):
    """Of answers with more tokens in all than a head has channels; the decoder's self-attention is not."""
    params, adapters = shapes_of(CONFIG)
    asked = jax.ShapeDtypeStruct((ROWS, ANSWERS if fused else 1, length), jnp.int32)

    def loss(adapters, params, ids, asked):
        states = answer_states(T5(CONFIG), params, ids, asked, adapters=adapters)
        return states.astype(jnp.float32).sum()

    text = lowered(jax.grad(loss), adapters, params, TEXTS, asked)
    queries = f"{ROWS}x{HEADS}x{ANSWERS * length}x{CONFIG.d_kv}xbf16"
    found = [results for results in kernels(text, "Softmax") if results[0] == queries]
    assert len(found) == fused
    assert len(kernels(text, "Backward")) == 1 + fused


def test_bert_attends_by_cudnn_too():
    config = replace(TINY_BERT, hidden_size=16, num_attention_heads=2, dtype="bfloat16")
    model = BertModel(replace(config, attention="cudnn"))

    def loss(params, ids):
        return model.encode(params, ids)[0].astype(jnp.float32).sum()

    text = lowered(jax.grad(loss), model.param_shapes(), TEXTS)
    assert len(kernels(text, "Backward")) == config.num_hidden_layers and WEIGHTS not in text


def products(text):
    """The precision of each matrix product, by the shape of its result."""
    found = {}
    for line in text.splitlines():
        if "stablehlo.dot_general" in line:
            shape = re.search(r"-> tensor<([\dx]+)x\w+>", line)[1]
            found.setdefault(shape, set()).add(*re.findall(r"precision = \[(\w+), ", line))
    return found


ITEMS = 29  # no other size is 29
EMBEDDING = Embedding(EmbeddingConfig(recent=2))


def scored(verbalizer, candidates):
    """The program that scores the catalogue, or candidates of every text, lowered for a TPU."""
    config = replace(CONFIG, dtype="float32", attention="xla")
    titles = np.stack([np.arange(ITEMS) % 7 + 1, np.arange(ITEMS) // 7 + 8], axis=1)
    weights = np.full(titles.shape, 0.5, np.float32)
    codes = tuple(range(candidates or 0))
    ranker = Ranker(T5Model(config), titles, weights, 1, verbalizer, codes)
    params, _ = shapes_of(config)
    asked = {"owners": jnp.zeros(TEXTS.shape, jnp.int32)}
    if candidates:
        places = jnp.zeros((ROWS, candidates), jnp.int32)
        run = partial(ranker.candidate_scores, candidates=places, **asked)
    else:
        run = partial(ranker.catalogue_scores, **asked)
    return products(lowered(lambda params, ids: run(params, ids), params, TEXTS, platform="tpu"))


@pytest.mark.parametrize(
    ("verbalizer", "candidates", "scores"),
    [
        (MEAN, 0, f"{ROWS}x{ITEMS}"),
        (MEAN, 23, f"{ROWS}x23"),
        (INDEX, 23, f"{ROWS}x23"),
        (SEQUENCE, 23, f"{ROWS}x{CONFIG.vocab_size}"),
        (EMBEDDING, 0, f"{ROWS}x{ITEMS}"),
        (EMBEDDING, 23, f"{ROWS}x23"),
    ],
)
def test_item_scores_are_exact_on_a_tpu(verbalizer, candidates, scores):
    found = scored(verbalizer, candidates)
    assert any(shape.endswith(scores) and how == {"HIGHEST"} for shape, how in found.items()), found
    assert {"DEFAULT"} in found.values(), "what the model itself computes has the default precision"


@pytest.mark.parametrize("precision", ["default", "high"])
def test_the_model_computes_in_the_precision_of_its_config(precision):
    """Forward and backward."""
    config = replace(CONFIG, dtype="float32", attention="xla", precision=precision)
    used = set().union(*products(step(config, "adapters")).values())
    assert used == {precision.upper()}


def test_the_orthogonality_penalty_is_exact():
    _, adapters = shapes_of(CONFIG)
    text = lowered(jax.grad(orthogonality_penalty), adapters, platform="tpu")
    assert set().union(*products(text).values()) == {"HIGHEST"}


@pytest.mark.parametrize(("bits", "by_hardware"), [("threefry", False), ("rbg", True)])
def test_random_bits_come_from_the_hardware_if_asked(bits, by_hardware):
    key = prng.drawing(prng.key(0, "dropout"), bits)
    text = lowered(lambda x, key: dropped(x, 0.5, key), jnp.ones((4, 6)), key, platform="tpu")
    assert ("stablehlo.rng_bit_generator" in text) == by_hardware
