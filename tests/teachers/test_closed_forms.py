"""The baselines in closed form, against hand-worked tables, brute force and other libraries."""

import itertools

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from delrec_jax.analysis.labels import SYSTEM_LABELS
from delrec_jax.errors import UserError
from delrec_jax.evaluation.systems import SIMPLE_BASELINES
from delrec_jax.teachers import item_to_item
from delrec_jax.teachers.cease import CEASE, vector_cease
from delrec_jax.teachers.ease import EASE_WEIGHTED
from delrec_jax.teachers.item_knn import ITEM_KNN
from delrec_jax.teachers.item_to_item import ItemToItem, vector_similarity
from delrec_jax.teachers.markov import MARKOV
from delrec_jax.teachers.registry import CLOSED_FORMS
from delrec_jax.teachers.title_similarity import TITLE_SIMILARITY
from delrec_jax.teachers.training_part import TrainingPart

ROWS = [[0, 1, 2], [1, 2, 3, 1], [2, 0], [3]]  # one user has item 1 twice
TITLES = ("red shoe", "red boot", "blue boot", "green lamp")


def part(rows=ROWS, titles=TITLES):
    offsets = np.cumsum([0, *map(len, rows)])
    return TrainingPart(offsets, np.concatenate(rows).astype(np.int32), titles)


def random_part(items=12, users=30):
    random = np.random.default_rng(0)
    rows = [random.choice(items, random.integers(2, 6), replace=False) for _ in range(users)]
    return part(rows, tuple(f"title {item}" for item in range(items)))


def test_item_knn_by_hand():
    """Users of the items: 0: {0, 2}; 1: {0, 1}; 2: {0, 1, 2}; 3: {1, 3}."""
    found = np.asarray(ITEM_KNN.fit(part(), shrink=0.0, neighbors=0.0).matrix)
    wanted = np.zeros((4, 4))
    pairs = {
        (0, 1): 1 / 2,
        (0, 2): 2 / 6**0.5,
        (1, 2): 2 / 6**0.5,
        (1, 3): 1 / 2,
        (2, 3): 1 / 6**0.5,
    }
    for (a, b), value in pairs.items():
        wanted[a, b] = wanted[b, a] = value
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    shrunk = np.asarray(ITEM_KNN.fit(part(), shrink=2.0, neighbors=0.0).matrix)
    np.testing.assert_allclose(shrunk[0, 1:3], [1 / 4, 2 / (6**0.5 + 2)], rtol=1e-6)
    nearest = np.asarray(ITEM_KNN.fit(part(), shrink=0.0, neighbors=1.0).matrix)
    assert np.flatnonzero(nearest[0]).tolist() == [2] and np.flatnonzero(nearest[3]).tolist() == [1]


def test_markov_by_hand():
    """Distance 1: 0>1, 1>2 twice, 2>3, 3>1, 2>0. Distance 2, half as much: 0>2, 1>3, 2>1."""
    found = np.asarray(MARKOV.fit(part(), reach=2.0, smoothing=1.0).matrix)
    counts = np.array([[0, 1, 0.5, 0], [0, 0, 2, 0.5], [1, 0.5, 0, 1], [0, 1, 0, 0]])
    np.testing.assert_allclose(found, counts / (counts.sum(1, keepdims=True) + 1), rtol=1e-6)
    near = np.asarray(MARKOV.fit(part(), reach=1.0, smoothing=3.0).matrix)
    np.testing.assert_allclose(near[1], [0, 0, 2 / 5, 0], rtol=1e-6)
    far = np.asarray(MARKOV.fit(part(), reach=10.0, smoothing=1.0).matrix)
    assert far[1, 3] == pytest.approx(0.5 / (2.5 + 1)), "1 to itself, over three, is left out"


def assert_ridge_regression_of_each_item_on_the_others(matrix, rows, penalty):
    found = np.asarray(matrix)
    for item in range(12):
        others = np.delete(np.arange(12), item)
        ridge = Ridge(alpha=penalty, fit_intercept=False).fit(rows[:, others], rows[:, item])
        np.testing.assert_allclose(found[others, item], ridge.coef_, atol=1e-5)
    np.testing.assert_array_equal(np.diag(found), 0.0)


def test_ease_is_the_ridge_regression_of_each_item_on_the_others():
    train, penalty = random_part(), 3.0
    given = np.zeros((30, 12))
    given[train.users, train.items] = 1
    found = EASE_WEIGHTED.fit(train, penalty=penalty).matrix
    assert_ridge_regression_of_each_item_on_the_others(found, given, penalty)


def test_cease_is_the_ridge_regression_on_users_and_texts_together():
    """Users and, as further rows that weigh `weight`, the features of the texts; brute force by scikit-learn."""
    train, penalty, weight = random_part(), 3.0, 5.0
    given = np.zeros((30, 12))
    given[train.users, train.items] = 1
    features = np.random.default_rng(3).normal(size=(4, 12))
    rows = np.concatenate([given, weight**0.5 * features])
    form = CEASE("texts", lambda _: (features.T @ features).astype(np.float32))
    found = form.fit(train, penalty=penalty, weight=weight).matrix
    assert_ridge_regression_of_each_item_on_the_others(found, rows, penalty)


def test_cease_knows_an_item_that_no_user_had_by_its_title():
    rows, titles = [[0, 2], [0, 2], [2, 0]], ("red shoe", "red shoe", "blue boot", "green lamp")
    ease = np.asarray(EASE_WEIGHTED.fit(part(rows, titles), penalty=1.0).matrix)
    cease = np.asarray(
        CLOSED_FORMS["cease"].fit(part(rows, titles), penalty=1.0, weight=3.0).matrix
    )
    assert not ease[2, 1] and not cease[2, 3], "a lamp has neither users nor words"
    assert cease[0, 1] > 0.1, "the same title"


def test_cease_of_vectors_compares_them_centered_and_at_length_1():
    random = np.random.default_rng(4)
    vectors, train = random.normal(size=(12, 3)) * 5 + 10.0, random_part()
    away = vectors - vectors.mean(0)
    cosines = np.array([[a @ b / (a @ a * (b @ b)) ** 0.5 for b in away] for a in away])
    wanted = CEASE("x", lambda _: cosines.astype(np.float32)).fit(train, penalty=2.0, weight=4.0)
    found = vector_cease("x", vectors).fit(train, penalty=2.0, weight=4.0)
    np.testing.assert_allclose(found.matrix, wanted.matrix, atol=1e-5)
    without = vector_cease("x", vectors).fit(train, penalty=2.0, weight=0.0)
    ease = EASE_WEIGHTED.fit(train, penalty=2.0)
    np.testing.assert_array_equal(without.matrix, ease.matrix)
    vectors[3, 1] = np.nan
    with pytest.raises(UserError, match="x: the vectors of the items are not finite"):
        vector_cease("x", vectors)


def test_ease_refuses_a_matrix_without_an_inverse():
    with pytest.raises(
        UserError, match=r"EASE: the matrix of common users is not positive .* -100; give a larger"
    ):
        EASE_WEIGHTED.fit(random_part(), penalty=-100.0)


def test_titles_that_share_rare_words_are_near():
    found = np.asarray(TITLE_SIMILARITY.fit(part(), words=1.0).matrix)
    assert found[0, 1] > 0 and found[1, 2] > 0
    assert not found[3].any() and found[0, 2] == 0
    rare = ("red shoe", "red boot", "red boot", "old shoe")  # "red" is common: "shoe" counts more
    found = np.asarray(TITLE_SIMILARITY.fit(part(titles=rare), words=1.0).matrix)
    assert found[0, 3] > found[0, 1] > 0
    assert found[1, 2] == pytest.approx(1.0)
    phrases = np.asarray(TITLE_SIMILARITY.fit(part(), words=2.0).matrix)
    assert 0 < phrases[0, 1] < np.asarray(TITLE_SIMILARITY.fit(part(), words=1.0).matrix)[0, 1]
    with pytest.raises(UserError, match="titles of the catalogue have no words"):
        TITLE_SIMILARITY.fit(part(titles=("!", "?", ".", "-")), words=1.0)


def weighted_sum(matrix, history, decay, floor):
    kept = [item for item in history if item >= 0]
    total = np.zeros(len(matrix))
    for age, item in enumerate(reversed(kept)):
        total += (floor + (1 - floor) * decay**age) * matrix[item]
    return total


@pytest.mark.parametrize("rows_at_a_time", [0, 1000])
def test_scores_are_weighted_sums_of_rows_by_either_way(rows_at_a_time, monkeypatch):
    monkeypatch.setattr(item_to_item, "_ROWS_ARE_FASTER", rows_at_a_time)
    random = np.random.default_rng(1)
    matrix = random.normal(size=(9, 9)).astype(np.float32)
    teacher = item_to_item.item_to_item(matrix).weighted_by(decay=0.7, floor=0.2)
    np.fill_diagonal(matrix, 0.0)
    histories = np.array([[-1, -1, 4], [2, 2, 7], [-1, -1, -1]])
    found = np.asarray(teacher.scores(histories))
    wanted = [weighted_sum(matrix, row, 0.7, 0.2) for row in histories]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    padded = np.pad(histories, ((0, 0), (3, 0)), constant_values=-1)
    np.testing.assert_allclose(np.asarray(teacher.scores(padded)), found, atol=1e-6)


def test_similarity_of_vectors_is_the_cosine_of_centered_vectors():
    vectors = np.random.default_rng(2).normal(size=(7, 3)) + 10.0
    teacher = vector_similarity(vectors).weighted_by(decay=0.5, floor=0.0)
    centred = vectors - vectors.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    found = np.asarray(teacher.scores(np.array([[-1, 5], [3, 1]])))
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, 0)  # an item says nothing about itself
    np.testing.assert_allclose(found, [cosines[5], cosines[1] + 0.5 * cosines[3]], atol=1e-5)
    (twice,) = np.asarray(teacher.scores(np.array([[3, 1, 3]])))
    np.testing.assert_allclose(twice, 1.25 * cosines[3] + 0.5 * cosines[1], atol=1e-5)


@pytest.mark.parametrize("name", ["itemknn", "markov", "ease", "tfidf", "cease"])
def test_every_baseline_scores_any_history_and_refuses_a_catalogue_without_end(name, monkeypatch):
    form = CLOSED_FORMS[name]
    settings = {key: values[0] for key, values in form.grid.items()}
    teacher = form.fit(random_part(), **settings)
    assert isinstance(teacher, ItemToItem)
    scores = np.asarray(teacher.scores(np.array([[-1, -1, -1], [0, 5, 11]])))
    assert scores.shape == (2, 12) and np.isfinite(scores).all() and not scores[0].any()
    for values in itertools.chain.from_iterable(form.grid.values()):
        assert values >= 0
    monkeypatch.setattr(item_to_item, "MOST_ITEMS", 11)
    with pytest.raises(
        UserError, match=r"a catalogue of 12 items needs a matrix .* baselines\.names"
    ):
        form.fit(random_part(), **settings)


def test_each_baseline_is_a_system_with_a_name():
    assert set(CLOSED_FORMS) == set(SIMPLE_BASELINES) <= set(SYSTEM_LABELS)
    for name, form in CLOSED_FORMS.items():
        assert SYSTEM_LABELS[name].lower() == form.title.lower()
