"""`sequence`: teacher-forced log-likelihoods of titles, against one title at a time."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from delrec_jax.language import t5_model
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.sequence_scoring import (
    SEQUENCE,
    sequence_scores,
    token_log_probabilities,
)
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_answers import answer_states, teacher_forced
from delrec_jax.language.t5_model import T5Model
from delrec_jax.language.verbalizer import title_matrix

STATES = jax.jit(answer_states, static_argnums=0)
LOGITS = jax.jit(
    lambda module, params, *ids: module.apply({"params": params}, *ids), static_argnums=0
)
MASK = 39
TITLES = [[4], [7, 7, 9], [3, 4, 5, 6], [9, 7], [7, 9], [9, 7]]
IDS = jnp.asarray([[5, 9, MASK, 7, 1], [3, 8, MASK, 1, 0]])
CANDIDATES = jnp.asarray([[4, 0, 2, 1], [1, 5, 3, 4]])


@pytest.fixture(autouse=True)
def one_compilation(monkeypatch):
    monkeypatch.setattr(t5_model, "answer_states", STATES)


def ranker(config, titles=TITLES):
    return Ranker(T5Model(config), *title_matrix(titles), MASK, SEQUENCE, ())


def one_by_one(config, params):
    """Every title of every text alone: its own pass, whole log-softmax, no padding."""
    scores = np.zeros((len(IDS), len(TITLES)))
    for item, title in enumerate(TITLES):
        answer = jnp.asarray([[0, MASK, *title]] * len(IDS))
        logp = log_softmax(np.asarray(LOGITS(T5(config), params, IDS, answer), float), axis=-1)
        for place, token in enumerate(title):  # the state at place + 1 has read tokens up to it
            scores[:, item] += logp[:, place + 1, token] / len(title)
    return scores


def test_decoder_input_by_hand():
    titles = jnp.asarray([[[5, 6, 7], [8, 0, 0]]])
    wanted = [[[0, MASK, 5, 6], [0, MASK, 8, 0]]]
    np.testing.assert_array_equal(teacher_forced(titles, MASK), wanted)


def test_scores_are_those_of_titles_taken_one_by_one(either):
    config, params = either
    scores = ranker(config).candidate_scores(params, IDS, CANDIDATES)
    brute = np.take_along_axis(one_by_one(config, params), np.asarray(CANDIDATES), 1)
    assert scores.dtype == jnp.float32 and brute.std(1).min() > 0.1
    np.testing.assert_allclose(scores, brute, atol=1e-4)


def test_the_order_of_tokens_counts(gated):
    config, params = gated
    candidates = jnp.asarray([[3, 4, 0, 1]] * 2)
    scores = np.asarray(ranker(config).candidate_scores(params, IDS, candidates))
    assert np.abs(scores[:, 0] - scores[:, 1]).min() > 0.1


def test_a_longer_padding_changes_no_score(gated):
    config, params = gated
    wider = [*TITLES, list(range(3, 13))]
    scores = ranker(config).candidate_scores(params, IDS, CANDIDATES)
    padded = ranker(config, wider).candidate_scores(params, IDS, CANDIDATES)
    np.testing.assert_allclose(padded, scores, atol=1e-5)


def test_another_candidate_changes_no_score(gated):
    config, params = gated
    scores = ranker(config).candidate_scores(params, IDS, CANDIDATES)
    for more in ([[3], [2]], [[4], [0]]):
        wider = jnp.concatenate([jnp.asarray(more), CANDIDATES], axis=1)
        found = ranker(config).candidate_scores(params, IDS, wider)
        np.testing.assert_allclose(found[:, 1:], scores, atol=1e-5)


def test_uniform_predictions_have_no_length(gated):
    tokens, weights = title_matrix(TITLES)
    hidden = jax.random.normal(jax.random.key(0), (1, *tokens.shape, 6))
    scores = sequence_scores(hidden, jnp.zeros((40, 6)), tokens[None], weights[None])
    np.testing.assert_allclose(scores, np.full((1, len(TITLES)), -np.log(40)), rtol=1e-6)


def test_each_text_is_encoded_once(gated, monkeypatch):
    config, params = gated
    monkeypatch.setattr(t5_model, "answer_states", answer_states)
    encode, shapes = T5.encode, []

    def counted(self, embeddings, *rest):
        shapes.append(embeddings.shape)
        return encode(self, embeddings, *rest)

    monkeypatch.setattr(T5, "encode", counted)
    jax.eval_shape(ranker(config).candidate_scores, params, IDS, CANDIDATES)
    assert shapes == [(*IDS.shape, config.d_model)]


RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(2, 3, 5, 6)).astype(np.float32)
HEAD = RNG.normal(size=(40, 6)).astype(np.float32)
TOKENS = RNG.integers(0, 40, (2, 3, 5), np.int32)


def total(hidden, head, max_logits):
    return token_log_probabilities(hidden, head, TOKENS, max_logits=max_logits).sum()


@pytest.mark.parametrize("max_logits", [1, 2 * 40 * 4, 2 * 40 * 15, 10**6])
def test_few_places_at_a_time_are_the_same(max_logits):
    found = token_log_probabilities(HIDDEN, HEAD, TOKENS, max_logits=max_logits)
    logp = log_softmax(np.einsum("bnwd,vd->bnwv", HIDDEN, HEAD).astype(float), axis=-1)
    wanted = np.take_along_axis(logp, np.asarray(TOKENS)[..., None], -1)[..., 0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for argument in (0, 1):
        grad = jax.grad(total, argument)(HIDDEN, HEAD, max_logits)
        whole = jax.grad(
            lambda *parts: jnp.take_along_axis(
                jax.nn.log_softmax(jnp.einsum("bnwd,vd->bnwv", *parts)), TOKENS[..., None], -1
            ).sum(),
            argument,
        )(HIDDEN, HEAD)
        np.testing.assert_allclose(grad, whole, atol=1e-5)


def largest_logits(function, *arguments):
    """Size of the largest array with a vocabulary axis anywhere in a computation."""
    shapes = re.findall(r"f32\[([\d,]+)\]", str(jax.make_jaxpr(function)(*arguments)))
    sizes = [[int(n) for n in shape.split(",")] for shape in shapes]
    return max(int(np.prod(size)) for size in sizes if 40 in size)


def test_logits_in_memory_are_bounded_in_both_passes():
    bound = 2 * 40 * 4  # four of the fifteen places
    for function in (total, jax.grad(total)):
        held = largest_logits(lambda h, f=function: f(h, HEAD, bound), HIDDEN)
        assert 2 * 40 < held <= bound


def test_logits_of_half_precision_are_float32():
    """Rounded logits would move scores of titles by more than what sets them apart."""
    hidden, head = (part.astype(jnp.bfloat16) for part in (HIDDEN, HEAD))
    found = token_log_probabilities(hidden, head, TOKENS)
    wanted = token_log_probabilities(hidden.astype(float), head.astype(float), TOKENS)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_model_in_half_precision_scores_alike(gated):
    config, params = gated
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    config16 = replace(config, dtype="bfloat16", param_dtype="bfloat16")
    scores = ranker(config).candidate_scores(params, IDS, CANDIDATES)
    rounded = ranker(config16).candidate_scores(half, IDS, CANDIDATES)
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, scores, atol=0.5)
