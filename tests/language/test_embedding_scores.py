"""The verbalizer `embedding` against a loop in NumPy, on a toy encoder whose states are known."""

from dataclasses import asdict, dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.config import LMConfig
from delrec_jax.errors import UserError
from delrec_jax.language.embedding_config import EmbeddingConfig
from delrec_jax.language.family import LanguageModel
from delrec_jax.language.pooling import mean_pooled, weighted_pooled
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.title_ages import latest_items, shown_items, title_ages
from delrec_jax.language.verbalizer import title_matrix
from delrec_jax.language.verbalizers import find_verbalizer

WIDTH, MASK, BEGIN, END = 3, 19, 17, 18
TITLES = [[4], [7, 7, 9], [3, 4, 5, 6], [9, 7], [11, 4], [9, 7]]
TABLE = np.random.default_rng(0).normal(size=(20, WIDTH)).astype(np.float32)
# Two texts: titles 2, 0, 3 (the latest) between words, and title 1 alone; then padding.
IDS = np.array([[17, 8, 3, 4, 5, 6, 2, 4, 2, 9, 7, 8, MASK], [17, 7, 7, 9, MASK, 18, *[0] * 7]])
OWNERS = np.array([[0, 0, 3, 3, 3, 3, 0, 1, 0, 4, 4, 0, 0], [0, 2, 2, 2, *[0] * 9]])
AGES = [[-1, -1, 2, 2, 2, 2, -1, 1, -1, 0, 0, -1, -1], [-1, 0, 0, 0, *[-1] * 9]]
CANDIDATES = np.array([[4, 0, -1], [1, 1, 3]])


@dataclass(frozen=True)
class Toy(LanguageModel):
    """States are rows of a table, plus 0.1 times the prompt's first row and the adapters, where there are any."""

    @property
    def width(self):
        return WIDTH

    @property
    def vocab_size(self):
        return len(TABLE)

    def encode(self, params, ids, *, prompt=None, adapters=None, dropout_key=None):
        states = jnp.asarray(params)[ids]
        if prompt is not None:
            states = states + 0.1 * prompt[0]
        return (states if adapters is None else states + adapters), ids != 0

    def with_adapters(self, adapters):
        return self

    def table(self, params):
        return params

    def param_shapes(self):
        return jax.ShapeDtypeStruct(TABLE.shape, TABLE.dtype)

    def axes_of(self, path, shape):
        return (None, None)


def ranker(**settings):
    config = LMConfig(verbalizer="embedding", embedding=EmbeddingConfig(**settings))
    verbalizer = find_verbalizer("embedding").configured(config, [BEGIN], [END])
    return Ranker(Toy(), *title_matrix(TITLES), MASK, verbalizer, ())


def unit(vector):
    return vector / np.linalg.norm(vector)


def expected(config, readout, prompt=0.0):
    """Scores of the catalogue as the docstring of `embedding_scoring` says, item by item."""
    raw = [np.mean([TABLE[t] for t in (BEGIN, *title, END)], axis=0) for title in TITLES]
    mean = np.mean(raw, axis=0)
    items = [unit(vector - mean) for vector in raw]
    if "item_residual" in readout:
        own = readout["item_residual"]
        items = [unit(item + more) for item, more in zip(items, own, strict=True)]
    rows = []
    for ids, ages in zip(IDS, AGES, strict=True):
        weights = {
            "mean": [float(token > 0) for token in ids],
            "first": [float(place == 0) for place in range(len(ids))],
            "last": [float(token == MASK) for token in ids],
            "recency": [
                (token > 0) * (config.rest if age < 0 else config.decay**age)
                for token, age in zip(ids, ages, strict=True)
            ],
        }[config.pooling]
        state = np.average([TABLE[token] + prompt for token in ids], axis=0, weights=weights)
        user = unit((state - mean) @ readout.get("map", np.eye(WIDTH)))
        latest = [[3, 0, 2], [1]][len(rows)][: config.recent]
        if latest:
            recent = np.mean([items[item] for item in latest], axis=0)
            user = unit(user + readout["recent_weight"] * recent)
        scale = np.exp(readout["log_scale"])
        cosines = np.array([user @ vector for vector in items])
        rows.append(scale * cosines + readout.get("item_bias", 0.0))
    return np.array(rows)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling": "mean", "recent": 0},
        {"pooling": "last", "recent": 1, "mapped": False},
        {"pooling": "first"},
        {"decay": 0.5, "rest": 0.0, "recent": 3, "item_bias": True},
        {"item_residual": True},
    ],
    ids=["default", "mean", "last", "first", "bias", "residual"],
)
def test_scores_are_those_of_a_loop(settings):
    model, rng = ranker(**settings), np.random.default_rng(1)
    readout = {
        name: np.asarray(value) + rng.normal(scale=0.3, size=np.shape(value)).astype(np.float32)
        for name, value in model.readout().items()
    }
    prompt = rng.normal(size=(2, WIDTH)).astype(np.float32)
    read = {"owners": OWNERS, "readout": readout, "prompt": prompt}
    found = np.asarray(model.catalogue_scores(TABLE, IDS, **read))
    wanted = expected(model.verbalizer.config, readout, 0.1 * prompt[0])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert wanted.std(axis=1).min() > 0.1
    among = np.asarray(model.candidate_scores(TABLE, IDS, CANDIDATES, **read))
    picked = np.where(CANDIDATES < 0, -np.inf, np.take_along_axis(found, CANDIDATES, 1))
    np.testing.assert_allclose(among, picked, rtol=1e-5)
    once = model.catalogue_scores(TABLE, IDS, vectors=model.item_vectors(TABLE), **read)
    np.testing.assert_allclose(once, found, rtol=1e-5)


def test_untrained_parameters_are_neutral():
    config = {"scale": 7.0, "recent_weight": 0.5, "item_bias": True, "item_residual": True}
    model = ranker(**config)
    scores = model.catalogue_scores(TABLE, IDS, owners=OWNERS)
    start = {"log_scale": np.log(7.0), "recent_weight": 0.5}
    np.testing.assert_allclose(scores, expected(model.verbalizer.config, start), rtol=1e-4)


def test_equal_titles_tie_unless_items_have_parameters():
    assert [group.tolist() for group in ranker().shared_titles] == [[3, 5]]
    assert ranker(item_bias=True).shared_titles == ranker(item_residual=True).shared_titles == []


def test_everything_that_trains_gets_a_gradient_and_prompts_reach_the_scores():
    model = ranker(item_bias=True, item_residual=True)
    params = {"readout": model.readout(), "prompt": jnp.ones((1, WIDTH))}

    def loss(params):
        scores = model.catalogue_scores(TABLE, IDS, owners=OWNERS, **params)
        return -jax.nn.log_softmax(scores)[:, 2].sum()

    gradient = jax.grad(loss)(params)
    assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(gradient))


def test_titles_are_read_between_their_special_tokens():
    rows = ranker().verbalizer.framed(jnp.asarray(title_matrix(TITLES).tokens))
    assert rows.tolist()[:2] == [[BEGIN, 4, END, 0, 0, 0], [BEGIN, 7, 7, 9, END, 0]]


def test_ages_and_items_by_hand():
    assert title_ages(jnp.asarray(OWNERS)).tolist() == AGES
    assert latest_items(jnp.asarray(OWNERS), 2).tolist() == [[3, 0], [1, -1]]
    shown = np.asarray(shown_items(jnp.asarray(OWNERS), len(TITLES)))
    assert [np.flatnonzero(row).tolist() for row in shown] == [[0, 2, 3], [1]]


def test_a_text_without_owners_is_refused():
    with pytest.raises(ValueError, match="reads the owner of each token"):
        ranker().catalogue_scores(TABLE, IDS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pooling": "max"}, "lm.embedding.pooling is 'max'"),
        ({"decay": 0.0}, "lm.embedding.decay is 0.0"),
        ({"rest": -0.1}, "lm.embedding.rest is -0.1"),
        ({"recent": -1}, "lm.embedding.recent is -1"),
        ({"scale": 0.0}, "lm.embedding.scale is 0.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(UserError) as refused:
        replace(EmbeddingConfig(), **wrong)
    assert message in str(refused.value)


def test_settings_start_as_documented_and_reach_their_limits():
    assert asdict(EmbeddingConfig()) == {
        **{"pooling": "recency", "decay": 0.6, "rest": 0.3, "recent": 2, "recent_weight": 1.0},
        **{"scale": 20.0, "mapped": True, "item_bias": False, "item_residual": False},
    }
    assert EmbeddingConfig(decay=1.0, rest=0.0, recent=0).decay == 1
    for wrong in ({"decay": 1.5}, {"decay": -0.5}, {"scale": -1.0}):
        with pytest.raises(UserError, match=r"lm\.embedding\."):
            EmbeddingConfig(**wrong)


def test_a_text_without_titles_is_what_it_says():
    nobody = np.zeros_like(OWNERS)
    found = ranker(pooling="mean").catalogue_scores(TABLE, IDS, owners=nobody)
    alone = ranker(pooling="mean", recent=0).catalogue_scores(TABLE, IDS, owners=nobody)
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)


def test_nothing_to_pool_is_zero_and_what_weighs_nothing_is_not_read():
    states, none = jnp.ones((2, 3, WIDTH)), jnp.zeros((2, 3))
    assert not np.asarray(mean_pooled(states, none > 0)).any()
    assert not np.asarray(weighted_pooled(states, none)).any()
    found = weighted_pooled(states.at[:, 0].set(jnp.nan), none.at[:, 1].set(0.5))
    np.testing.assert_allclose(found, np.ones((2, WIDTH)))


def test_a_model_that_says_no_more_has_neutral_properties():
    toy = Toy()
    assert (toy.dropout_rate, toy.longest_text, toy.closed) == (0.0, 0, ())
    assert toy.running == "kept and computed in float32"
