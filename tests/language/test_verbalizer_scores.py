"""Item scores against the definition: log-probabilities of a title's tokens, or of its code, at MASK."""

import types
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from delrec_jax.errors import UserError
from delrec_jax.evaluation.ranking import rank_candidates, rank_full
from delrec_jax.language import t5_model
from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.mean_scoring import averaged_rows
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.readout import distilled_part, with_readout
from delrec_jax.language.t5 import T5, head_matrix
from delrec_jax.language.t5_answers import answer_states, hidden_at_masks
from delrec_jax.language.t5_model import T5Model
from delrec_jax.language.verbalizer import Verbalizer, first_same_title, shared_titles, title_matrix
from delrec_jax.language.verbalizers import VERBALIZERS, find_verbalizer

HIDDEN = jax.jit(hidden_at_masks, static_argnums=0)
STATES = jax.jit(answer_states, static_argnums=0)
LOGITS = jax.jit(
    lambda module, params, *ids: module.apply({"params": params}, *ids), static_argnums=0
)
MASK = 39
# One token, a repeated token, tokens shared between titles, token 0 never.
TITLES = [[4], [7, 7, 9], [3, 4, 5, 6], [9, 7], [11, 4]]
CODES = (20, 31, 22)
# Those that read answers; `embedding` reads states (test_embedding_scores.py).
ANSWERED = ["first", "mean", "sequence", "index"]
IDS = jnp.asarray([[5, 9, MASK, 7, 1], [3, 8, MASK, 1, 0]])


CANDIDATES = jnp.asarray([[4, 0, 2], [1, 1, 3]])


def ranker(config, kind="mean", titles=TITLES):
    return Ranker(T5Model(config), *title_matrix(titles), MASK, find_verbalizer(kind), CODES)


@pytest.fixture(autouse=True)
def one_compilation(monkeypatch):
    """All rankers of this file share the compiled passes through the model."""
    monkeypatch.setattr(t5_model, "hidden_at_masks", HIDDEN)
    monkeypatch.setattr(t5_model, "answer_states", STATES)


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
    vectors = averaged_rows(head, *title_matrix(TITLES))
    expected = [np.mean([head[token] for token in title], axis=0) for title in TITLES]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "words"), [("mean", None), ("first", 1)])
def test_scores_are_mean_log_probabilities_up_to_a_constant_of_the_row(either, kind, words):
    config, params = either
    logp = log_softmax(logits_at_mask(config, params).astype(np.float64), axis=-1)
    brute = np.array(
        [[np.mean([row[t] for t in title[:words]]) for title in TITLES] for row in logp]
    )
    scores = np.asarray(ranker(config, kind).catalogue_scores(params, IDS))
    difference = scores - brute
    np.testing.assert_allclose(difference, np.tile(difference[:, :1], len(TITLES)), atol=1e-4)
    assert brute.std(axis=1).min() > 0.1
    # And the constant is the log-partition of the row: nothing else was lost.
    partition = np.log(np.exp(logits_at_mask(config, params).astype(np.float64)).sum(-1))
    np.testing.assert_allclose(difference[:, 0], partition, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mean", "first"])
def test_candidate_scores_are_those_of_the_catalogue(either, kind):
    config, params = either
    model = ranker(config, kind)
    all_scores = np.asarray(model.catalogue_scores(params, IDS))
    picked = np.take_along_axis(all_scores, CANDIDATES, 1)
    np.testing.assert_allclose(model.candidate_scores(params, IDS, CANDIDATES), picked, atol=1e-5)
    vectors = model.item_vectors(params)
    scores = model.candidate_scores(params, IDS, CANDIDATES, vectors=vectors)
    np.testing.assert_allclose(scores, picked, atol=1e-5)


@pytest.mark.parametrize("kind", ["mean", "first"])
def test_vectors_computed_before_are_used_and_give_the_same(gated, kind):
    config, params = gated
    model = ranker(config, kind)
    vectors = model.item_vectors(params)
    once = model.catalogue_scores(params, IDS, vectors=vectors)
    np.testing.assert_array_equal(once, model.catalogue_scores(params, IDS))
    doubled = {"vectors": 2 * vectors}
    np.testing.assert_array_equal(model.catalogue_scores(params, IDS, **doubled), 2 * once)
    one = model.candidate_scores(params, IDS, CANDIDATES, vectors=vectors)
    two = model.candidate_scores(params, IDS, CANDIDATES, **doubled)
    np.testing.assert_array_equal(two, 2 * one)


@pytest.mark.parametrize("kind", ANSWERED)
def test_padded_candidates_are_lowest_and_change_no_other_score(gated, kind):
    config, params = gated
    model = ranker(config, kind)
    whole = np.asarray(model.candidate_scores(params, IDS, CANDIDATES))
    padded = np.asarray(model.candidate_scores(params, IDS, CANDIDATES.at[0, 1].set(-1)))
    assert np.isfinite(whole).all() and padded[0, 1] == -np.inf
    kept = np.isfinite(padded)
    assert (~kept).sum() == 1
    np.testing.assert_array_equal(padded[kept], whole[kept])


@pytest.mark.parametrize("kind", ANSWERED)
def test_padded_rows_are_finite_and_change_no_other_score(gated, kind):
    config, params = gated
    model = ranker(config, kind)
    whole = np.asarray(model.candidate_scores(params, IDS, CANDIDATES))
    ids = jnp.concatenate([IDS, jnp.zeros_like(IDS[:1])])
    candidates = jnp.concatenate([CANDIDATES, CANDIDATES[:1]])
    padded = np.asarray(model.candidate_scores(params, ids, candidates))
    assert np.isfinite(padded).all()
    np.testing.assert_allclose(padded[:-1], whole, atol=1e-5)


def test_no_step_holds_all_tokens_of_all_titles(gated):
    config, params = gated
    items, longest, width = 50, 7, config.d_model
    titles = [[3 + (item + place) % 9 for place in range(longest)] for item in range(items)]
    model = ranker(config, titles=titles)
    vectors = str(jax.make_jaxpr(model.item_vectors)(params))
    assert f"[{items},{width}]" in vectors and f"[{items},{longest},{width}]" not in vectors
    assert f"[{longest},{items},{width}]" not in vectors
    scores = str(jax.make_jaxpr(model.candidate_scores)(params, IDS, CANDIDATES))
    assert f"[{items},{width}]" not in scores  # the candidates' rows alone


# a b | b a | a a b b | a b b | a c | a
SHARING = [[4, 5], [5, 4], [4, 4, 5, 5], [4, 5, 5], [4, 6], [4], [4, 5]]


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        ("first", [[0, 2, 3, 4, 5, 6]]),
        ("mean", [[0, 1, 2, 6]]),
        ("sequence", [[0, 6]]),
        ("index", []),
    ],
)
def test_titles_that_a_verbalizer_cannot_tell_apart(gated, kind, groups):
    tokens, _ = title_matrix(SHARING)
    assert [group.tolist() for group in shared_titles(tokens, VERBALIZERS[kind])] == groups
    first = list(range(len(SHARING)))
    for group in groups:
        for item in group:
            first[item] = group[0]
    assert first_same_title(tokens, VERBALIZERS[kind]).tolist() == first
    assert [g.tolist() for g in ranker(gated[0], kind, SHARING).shared_titles] == groups


def test_several_groups_are_kept_apart():
    tokens, _ = title_matrix([[9], [8], [9], [8], [7], [8]])
    assert [g.tolist() for g in shared_titles(tokens, VERBALIZERS["sequence"])] == [
        [0, 2],
        [1, 3, 5],
    ]


@pytest.mark.parametrize("kind", ["first", "mean", "sequence"])
def test_shared_titles_tie_exactly_and_get_the_mean_rank(gated, kind):
    config, params = gated
    base = np.random.default_rng(1).integers(3, 39, (6, 7)).tolist()
    if kind == "mean":  # the same words, each time in another order
        orders = [np.random.default_rng(order).permutation(7) for order in range(5)]
        titles = [[title[place] for place in order] for title in base for order in orders]
    else:
        titles = [title for title in base for _ in range(5)]
    model = ranker(config, kind, titles)
    candidates = jnp.tile(jnp.arange(30).reshape(6, 5).T.reshape(1, 30), (2, 1))  # far apart
    scores = np.asarray(model.candidate_scores(params, IDS, candidates))
    tied = scores.reshape(2, 5, 6)
    np.testing.assert_array_equal(tied, np.tile(tied[:, :1], (1, 5, 1)))
    ranks, ties = rank_candidates(scores, candidates, jnp.asarray([0, 29]))
    better = (tied[:, 0] > tied[:, 0][[0, 1], [0, 5]][:, None]).sum(1)
    np.testing.assert_array_equal(ranks, 5 * better + 3)
    np.testing.assert_array_equal(ties, [4, 4])
    if kind != "sequence":
        scores = model.catalogue_scores(params, IDS)
        ranks, ties = rank_full(scores, jnp.asarray([0, 29]))
        np.testing.assert_array_equal(ranks, 5 * better + 3)
        np.testing.assert_array_equal(ties, [4, 4])


def plain_scores(kind, config, params, prompt, adapters, ids):
    """Each item on its own, over whole log-softmaxes: slow, and differentiable."""
    head, module = head_matrix(params, config), T5(config)
    options = {"prompt": prompt, "adapters": adapters}
    at_mask = HIDDEN(module, params, ids, jnp.full((len(ids), 1), MASK), **options)[:, 0]
    logp, rows = jax.nn.log_softmax(at_mask @ head.T), []
    for row, candidates in enumerate(CANDIDATES.tolist()):
        scores = []
        for place, item in enumerate(candidates):
            title = jnp.asarray(TITLES[item])
            if kind == "sequence":
                answer = jnp.asarray([[[0, MASK, *TITLES[item], *[0] * (4 - len(title))]]])
                states = STATES(module, params, ids[row : row + 1], answer, **options)[0, 0, 1:]
                own = jax.nn.log_softmax(states[: len(title)] @ head.T)
                scores.append(own[jnp.arange(len(title)), title].mean())
            elif kind == "index":
                scores.append(logp[row, CODES[place]])
            else:
                scores.append(logp[row, title[:1] if kind == "first" else title].mean())
        rows.append(jnp.stack(scores))
    return jnp.stack(rows)


@pytest.mark.parametrize("kind", ANSWERED)
def test_gradients_to_prompt_and_adapters_are_those_of_a_plain_loop(gated, kind):
    config, params = gated
    lora = AdaLoRAConfig(init_rank=2, target_rank=1)
    config = replace(config, adapters=lora)
    adapters = jax.tree.map(lambda x: x + 0.1, init_adapters(params, lora, jax.random.key(0)))
    prompt, ids = 0.5 * jnp.ones((1, config.d_model)), IDS.at[:, 0].set(config.vocab_size)

    def loss(scores, trained):
        logp = jax.nn.log_softmax(scores(*trained), axis=-1)
        return -(logp * jnp.asarray([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])).sum()

    def ours(prompt, adapters):
        options = {"prompt": prompt, "adapters": adapters}
        return ranker(config, kind).candidate_scores(params, ids, CANDIDATES, **options)

    def plain(prompt, adapters):
        return plain_scores(kind, config, params, prompt, adapters, ids)

    found = jax.grad(partial(loss, ours))((prompt, adapters))
    wanted = jax.grad(partial(loss, plain))((prompt, adapters))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, wanted)
    assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(wanted))


def test_index_scores_are_the_codes_logits_in_their_order(either):
    config, params = either
    logits = logits_at_mask(config, params)
    index = ranker(config, "index")
    scores = index.candidate_scores(params, IDS, CANDIDATES)
    np.testing.assert_allclose(scores, logits[:, list(CODES)], atol=1e-4)
    two = index.candidate_scores(params, IDS, CANDIDATES[:, :2])
    np.testing.assert_allclose(two, logits[:, list(CODES[:2])], atol=1e-4)


def test_index_refuses_more_candidates_than_codes(gated):
    with pytest.raises(UserError, match=r"4 candidates.*3 codes"):
        four = jnp.zeros((2, 4), jnp.int32)
        ranker(gated[0], "index").candidate_scores(gated[1], IDS, four)


@pytest.mark.parametrize("kind", ANSWERED)
def test_who_can_score_the_catalogue(gated, kind):
    model = ranker(gated[0], kind)
    assert model.ranks_catalogue == (kind in ("first", "mean"))
    if not model.ranks_catalogue:
        message = rf"lm.verbalizer={kind} scores stated candidates only; use 'mean'"
        with pytest.raises(UserError, match=message):
            model.catalogue_scores(gated[1], IDS)


def test_an_unknown_verbalizer_is_named(gated):
    with pytest.raises(UserError, match=r"lm.verbalizer is 'median': use one of first, mean"):
        ranker(gated[0], "median")


def test_prompt_adapters_and_dropout_reach_the_model(gated):
    config, params = gated
    lora = AdaLoRAConfig(init_rank=2, target_rank=1)
    mean, index, sequence = (
        ranker(replace(config, adapters=lora), kind) for kind in ("mean", "index", "sequence")
    )
    adapters = init_adapters(params, lora, jax.random.key(0))
    prompt = jnp.ones((1, config.d_model))
    ids = IDS.at[:, 0].set(config.vocab_size)

    def scores(options):
        options = {"prompt": prompt, "adapters": adapters} | options
        return (
            mean.catalogue_scores(params, ids, **options),
            *(
                model.candidate_scores(params, ids, CANDIDATES, **options)
                for model in (mean, index, sequence)
            ),
        )

    base = scores({"prompt": prompt, "adapters": adapters})
    for change in (
        {"prompt": -prompt, "adapters": adapters},
        {"prompt": prompt, "adapters": jax.tree.map(lambda x: x + 0.5, adapters)},
        {"dropout_key": jax.random.key(5)},
    ):
        for before, after in zip(base, scores(change), strict=True):
            assert np.abs(before - after).max() > 1e-3


TRAITS = {  # ranks the catalogue, lists codes, shows examples, logits, encodes titles, reads owners
    "first": (True, False, False, 0, False, False),
    "mean": (True, False, True, 0, False, False),
    "sequence": (False, False, False, 2**24, False, False),
    "index": (False, True, False, 0, False, False),
    "embedding": (True, False, True, 0, True, True),
}


def test_what_each_verbalizer_says_of_itself():
    names = ("ranks_catalogue", "lists_codes", "shows_examples", "max_logits")
    names += ("encodes_titles", "reads_owners")
    assert {
        kind: tuple(getattr(one, name) for name in names) for kind, one in VERBALIZERS.items()
    } == TRAITS
    answers = {kind: one.answers(20, 7) for kind, one in VERBALIZERS.items()}
    assert answers == dict.fromkeys(VERBALIZERS, (1, 1)) | {"sequence": (20, 7)}


@pytest.mark.parametrize("method", ["key", "candidate_scores"])
def test_a_verbalizer_without_its_methods_cannot_be_made(method):
    given = dict.fromkeys(("key", "candidate_scores"), lambda self, *rest: None)
    del given[method]
    half = types.new_class("Half", (Verbalizer,), exec_body=lambda names: names.update(given))
    with pytest.raises(TypeError, match=method):
        half()


def test_a_readout_is_a_branch_only_where_there_is_one():
    assert with_readout({"prompt": 1}, {}) == {"prompt": 1}
    assert with_readout({"prompt": 1}, {"map": 2}) == {"prompt": 1, "readout": {"map": 2}}
    part = distilled_part(VERBALIZERS["embedding"], {"log_scale": 1, "map": 2})
    assert part == {"log_scale": 1}
