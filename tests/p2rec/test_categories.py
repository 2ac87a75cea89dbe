import warnings
from itertools import product

import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.p2rec.categories import (
    Categories,
    category_vectors,
    latent_categories,
    nearest_items,
)
from delrec_jax.p2rec.category_checks import check_categories, explained_variance

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


# Items of two kinds and of any popularity: the first axis is popularity alone, far larger than the kind on the second.
COUNTS = np.array([1, 60, 5, 200, 20, 3, 90, 11, 2, 40, 0])
KIND = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0])
KNOWN = COUNTS > 0


def of_a_teacher_without_bias():
    level = np.log1p(COUNTS)
    noise = np.random.default_rng(3).normal(scale=0.02, size=(11, 2))
    axes = np.stack([10 * level, 2 * KIND + 0.3 * level], axis=1)
    return (np.where(KNOWN[:, None], axes + noise, 77) + 5).astype(np.float32)


def test_popularity_decides_the_categories_of_vectors_as_they_are_but_not_of_residuals():
    vectors = of_a_teacher_without_bias()
    found = {}
    for popularity in ("kept", "residual"):
        grouped = category_vectors(vectors, COUNTS, popularity=popularity)
        found[popularity] = latent_categories(grouped, known=KNOWN, count=2, seed=0)
    residual = found["residual"].of_item
    assert (
        len({(kind, group) for kind, group in zip(KIND[KNOWN], residual[KNOWN], strict=True)}) == 2
    )
    kept = found["kept"].of_item
    assert COUNTS[kept == kept[0]].max() < COUNTS[kept == kept[3]].min()
    checks = {
        name: check_categories(one.of_item, COUNTS, {"kind": list(map(str, KIND))})
        for name, one in found.items()
    }
    assert checks["residual"]["attributes"] == {"kind": pytest.approx(1)}
    assert checks["kept"]["attributes"]["kind"] < 0.2
    assert (
        checks["kept"]["popularity_explained"]
        > 0.6
        > 0.3
        > checks["residual"]["popularity_explained"]
    )


def test_residuals_are_those_of_least_squares_with_intercept_and_of_length_one():
    vectors = of_a_teacher_without_bias()
    found = category_vectors(vectors, COUNTS, popularity="residual")
    level = np.log1p(COUNTS[KNOWN])
    design = np.stack([np.ones_like(level), level], axis=1)
    rows = vectors[KNOWN].astype(np.float64)
    rest = rows - design @ np.linalg.lstsq(design, rows, rcond=None)[0]
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    np.testing.assert_allclose(found[KNOWN], rest, atol=1e-7)
    assert not found[~KNOWN].any()
    assert category_vectors(vectors, COUNTS, popularity="kept") is vectors
    with pytest.raises(ValueError, match="popularity='gone'"):
        category_vectors(vectors, COUNTS, popularity="gone")


def test_equal_counts_leave_the_directions_from_the_mean_and_a_broken_vector_is_still_found():
    found = category_vectors(VECTORS, np.full(11, 4), popularity="residual")
    centred = VECTORS - VECTORS.mean(axis=0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    broken = VECTORS.copy()
    broken[4, 0] = np.nan
    grouped = category_vectors(broken, np.arange(1, 12), popularity="residual")
    with pytest.raises(UserError, match="not finite"):
        latent_categories(grouped, known=ALL, count=3, seed=0)


def test_explained_variance_by_hand():
    # Means 2 and 6; within 1 + 1 + 4 + 4 = 10, between 4 * 4 = 16.
    assert explained_variance(np.array([1.0, 3, 4, 8]), np.array([5, 5, 2, 2])) == pytest.approx(
        16 / 26
    )
    assert explained_variance(np.ones(4), np.array([0, 0, 1, 1])) == 0


def test_deciles_are_tenths_of_the_items():
    counts = np.arange(1, 41) ** 2
    found = check_categories(np.arange(40) // 4, counts, {})
    assert found["popularity_deciles"] == pytest.approx(1)
    scattered = check_categories(np.arange(40) % 10, counts, {})
    assert scattered["popularity_deciles"] < 0.05


def test_checks_leave_out_items_without_category_or_value_and_attributes_that_are_names():
    of_item = np.array([0, 0, 1, 1, -1, 0, 1], np.int32)
    counts = np.array([1, 1, 2, 2, 900, 1, 2])
    attributes = {
        "genre": ("a", "a", "b", "b", "a", "", "b"),  # the item without a category is left out
        "shelf": ("a", "a", "b", "b", "a", "c", "c"),  # two items a value, on average
        "id": tuple("abcdefg"),
        "same": ("x",) * 7,
    }
    found = check_categories(of_item, counts, attributes)
    assert found == {
        "popularity_explained": pytest.approx(1),
        "popularity_deciles": pytest.approx(1),
        "attributes": {"genre": pytest.approx(1), "shelf": found["attributes"]["shelf"]},
    }
    assert 0 < found["attributes"]["shelf"] < 1
