"""Item scores against the definition: mean log-probability of a title's tokens at MASK."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from delrec_jax.errors import UserError
from delrec_jax.language import ranker as ranker_module
from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.answering import hidden_at_masks
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.t5 import T5
from delrec_jax.language.verbalizer import item_vectors, title_matrix

HIDDEN = jax.jit(hidden_at_masks, static_argnums=0)
LOGITS = jax.jit(
    lambda module, params, *ids: module.apply({"params": params}, *ids), static_argnums=0
)
MASK = 39
# One token, a repeated token, tokens shared between titles, token 0 never.
TITLES = [[4], [7, 7, 9], [3, 4, 5, 6], [9, 7], [11, 4]]
CODES = (20, 31, 22)
IDS = jnp.asarray([[5, 9, MASK, 7, 1], [3, 8, MASK, 1, 0]])


def ranker(config, kind="mean"):
    return Ranker(T5(config), *title_matrix(TITLES), MASK, kind, CODES)


@pytest.fixture(autouse=True)
def one_compilation(monkeypatch):
    """All rankers of this file share the compiled passes through the model."""
    monkeypatch.setattr(ranker_module, "hidden_at_masks", HIDDEN)


def logits_at_mask(config, params):
    decoder_ids = jnp.asarray([[0, MASK]] * len(IDS))
    return np.asarray(LOGITS(T5(config), params, IDS, decoder_ids))[:, 1]


def test_a_ranker_is_a_static_argument(gated):
    one, other = ranker(gated[0]), ranker(gated[0])
    assert one == one and one != other and len({one, other, one}) == 2
    count = jax.jit(lambda model, x: x + len(model.title_tokens), static_argnums=0)
    assert count(one, 1) == len(TITLES) + 1


def test_title_matrix_by_hand():
    tokens, weights = title_matrix([[5], [6, 7, 8]])
    np.testing.assert_array_equal(tokens, [[5, 0, 0], [6, 7, 8]])
    np.testing.assert_allclose(weights, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    assert (tokens.dtype, weights.dtype) == (np.int32, np.float32)


def test_a_title_without_tokens_is_named():
    with pytest.raises(ValueError, match="item 1 has a title without tokens"):
        title_matrix([[5], [], [6]])


def test_item_vectors_are_means_of_rows():
    head = jax.random.normal(jax.random.key(0), (12, 3))
    vectors = item_vectors(head, *title_matrix(TITLES))
    expected = [np.mean([head[token] for token in title], axis=0) for title in TITLES]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


def test_mean_scores_are_mean_log_probabilities_up_to_a_constant_of_the_row(either):
    config, params = either
    logp = log_softmax(logits_at_mask(config, params).astype(np.float64), axis=-1)
    brute = np.array([[np.mean([row[t] for t in title]) for title in TITLES] for row in logp])
    scores = np.asarray(ranker(config).catalogue_scores(params, IDS))
    difference = scores - brute
    np.testing.assert_allclose(difference, np.tile(difference[:, :1], len(TITLES)), atol=1e-4)
    assert brute.std(axis=1).min() > 0.1
    # And the constant is the log-partition of the row: nothing else was lost.
    partition = np.log(np.exp(logits_at_mask(config, params).astype(np.float64)).sum(-1))
    np.testing.assert_allclose(difference[:, 0], partition, rtol=1e-4)


def test_candidate_scores_are_gathered_from_the_catalogues(either):
    config, params = either
    candidates = jnp.asarray([[4, 0, 2], [1, 1, 3]])
    all_scores = np.asarray(ranker(config).catalogue_scores(params, IDS))
    scores = ranker(config).candidate_scores(params, IDS, candidates)
    np.testing.assert_allclose(scores, np.take_along_axis(all_scores, candidates, 1), atol=1e-5)


def test_index_scores_are_the_codes_logits_in_their_order(either):
    config, params = either
    logits = logits_at_mask(config, params)
    three = jnp.asarray([[4, 0, 2], [1, 1, 3]])
    index = ranker(config, "index")
    scores = index.candidate_scores(params, IDS, three)
    np.testing.assert_allclose(scores, logits[:, list(CODES)], atol=1e-4)
    two = index.candidate_scores(params, IDS, three[:, :2])
    np.testing.assert_allclose(two, logits[:, list(CODES[:2])], atol=1e-4)


def test_index_refuses_more_candidates_than_codes(gated):
    with pytest.raises(UserError, match=r"4 candidates.*3 codes"):
        four = jnp.zeros((2, 4), jnp.int32)
        ranker(gated[0], "index").candidate_scores(gated[1], IDS, four)


def test_index_cannot_score_the_catalogue(gated):
    with pytest.raises(UserError, match=r"lm.verbalizer=index scores listed candidates only"):
        ranker(gated[0], "index").catalogue_scores(gated[1], IDS)


def test_prompt_adapters_and_dropout_reach_the_model(gated):
    config, params = gated
    lora = AdaLoRAConfig(init_rank=2, target_rank=1)
    mean, index = (ranker(replace(config, adapters=lora), kind) for kind in ("mean", "index"))
    adapters = init_adapters(params, lora, jax.random.key(0))
    prompt = jnp.ones((1, config.d_model))
    ids = IDS.at[:, 0].set(config.vocab_size)
    candidates = jnp.asarray([[4, 0, 2], [1, 1, 3]])

    def scores(options):
        options = {"prompt": prompt, "adapters": adapters} | options
        return (
            mean.candidate_scores(params, ids, candidates, **options),
            mean.catalogue_scores(params, ids, **options),
            index.candidate_scores(params, ids, candidates, **options),
        )

    base = scores({"prompt": prompt, "adapters": adapters})
    for change in (
        {"prompt": -prompt, "adapters": adapters},
        {"prompt": prompt, "adapters": jax.tree.map(lambda x: x + 0.5, adapters)},
        {"dropout_key": jax.random.key(5)},
    ):
        for before, after in zip(base, scores(change), strict=True):
            assert np.abs(before - after).max() > 1e-3
