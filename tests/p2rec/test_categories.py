import warnings
from itertools import product

import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.p2rec.categories import Categories, latent_categories, nearest_items

RNG = np.random.default_rng(0)
BLOBS = np.array([[0, 0], [20, 0], [0, 20]])
OWNER = np.array([0, 1, 2, 1, 0, 2, 1, 1, 0, 2, 1])
VECTORS = (BLOBS[OWNER] + RNG.normal(size=(11, 2))).astype(np.float32)
ALL = np.ones(11, bool)


def groups(categories):
    return {frozenset(np.flatnonzero(categories.of_item == k)) for k in range(categories.count)}


def test_separate_groups_are_found():
    found = latent_categories(VECTORS, known=ALL, count=3, seed=0)
    assert groups(found) == {frozenset(np.flatnonzero(k == OWNER)) for k in range(3)}
    assert found.count == 3
    assert sorted(found.sizes.tolist()) == [3, 3, 5]
    for k in range(3):
        mean = VECTORS[found.of_item == k].mean(axis=0)
        np.testing.assert_allclose(found.centres[k], mean, rtol=1e-4)
    assert (found.of_item.dtype, found.centres.dtype) == (np.int32, np.float32)


def test_the_grouping_is_the_best_of_all():
    points = RNG.normal(size=(9, 2)).astype(np.float32)

    def spread(labels):
        parts = [points[np.asarray(labels) == k] for k in set(labels)]
        return sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts)

    found = latent_categories(points, known=np.ones(9, bool), count=2, seed=0)
    best = min(spread(labels) for labels in product((0, 1), repeat=9) if len(set(labels)) == 2)
    assert spread(tuple(found.of_item.tolist())) == pytest.approx(best, rel=1e-5)


def test_items_without_a_training_interaction_have_no_category_and_no_influence():
    known = ALL.copy()
    known[[2, 6]] = False
    wild = VECTORS.copy()
    wild[2], wild[6] = np.nan, 1e6
    found = latent_categories(wild, known=known, count=3, seed=0)
    assert found.of_item[[2, 6]].tolist() == [-1, -1]
    assert (found.of_item[known] >= 0).all()
    assert sorted(found.sizes.tolist()) == [2, 3, 4]
    alone = latent_categories(VECTORS[known], known=known[known], count=3, seed=0)
    np.testing.assert_array_equal(found.of_item[known], alone.of_item)
    np.testing.assert_array_equal(found.centres, alone.centres)


def test_one_seed_gives_one_grouping():
    points = RNG.normal(size=(80, 3))
    first, second, other = (
        latent_categories(points, known=np.ones(80, bool), count=9, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.of_item, second.of_item)
    np.testing.assert_array_equal(first.centres, second.centres)
    assert (first.of_item != other.of_item).any()


def test_too_many_or_too_few_categories_are_errors():
    known = np.arange(11) < 4
    for count in (0, 1):
        with pytest.raises(UserError, match=rf"parse\.categories is {count}: .*at least 2"):
            latent_categories(VECTORS, known=known, count=count, seed=0)
    with pytest.raises(UserError, match=r"parse\.categories is 5: only 4 items"):
        latent_categories(VECTORS, known=known, count=5, seed=0)
    found = latent_categories(VECTORS, known=known, count=4, seed=0)
    assert found.sizes.tolist() == [1] * 4


def test_empty_categories_are_an_error_and_not_a_warning():
    repeated = VECTORS[[0, 1, 2, 0, 1, 2, 0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            UserError, match=r"parse\.categories is 4: .* 7 items .*only 3 different"
        ):
            latent_categories(repeated, known=np.ones(7, bool), count=4, seed=0)


def test_vectors_that_are_not_finite_are_an_error():
    broken = VECTORS.copy()
    broken[4, 0], broken[5] = np.inf, np.nan
    with pytest.raises(UserError, match=r"parse\.categories is 3: .* 2 items are not finite"):
        latent_categories(broken, known=ALL, count=3, seed=0)


def test_the_nearest_items_are_members_in_order_of_distance():
    found = latent_categories(VECTORS, known=ALL, count=3, seed=0)
    nearest = nearest_items(VECTORS, found, 2)
    for k, items in enumerate(nearest):
        away = ((VECTORS - found.centres[k]) ** 2).sum(axis=1)
        members = sorted(np.flatnonzero(found.of_item == k), key=lambda item: away[item])
        assert items.tolist() == members[:2]


def test_the_nearest_items_never_belong_to_another_category():
    # Item 1 lies on the centre of category 0 and item 3 has none.
    vectors = np.array([[3.0], [0.0], [1.0], [0.0], [1.0]])
    categories = Categories(np.array([0, 1, 0, -1, 0], np.int32), np.array([[0.0], [9.0]]))
    nearest = nearest_items(vectors, categories, 5)
    assert [items.tolist() for items in nearest] == [[2, 4, 0], [1]]
