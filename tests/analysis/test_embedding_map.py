import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.manifold import trustworthiness

from delrec_jax.analysis import embedding_map as em
from delrec_jax.errors import UserError


def picture(svg):
    """The image inside, as RGBA."""
    data = re.findall(r"data:image/png;base64,([^\"]+)\"", svg)
    assert len(data) == 1  # all points are in one image
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data[0]))).convert("RGBA"))


def opaque(svg):
    return picture(svg)[..., 3] > 0


def test_a_map_is_deterministic_self_contained_and_small():
    generator = np.random.default_rng(0)
    categories = generator.integers(-1, 20, 12_000)
    points = generator.normal(0, 1, (12_000, 2)) + 6 * generator.normal(0, 1, (21, 2))[categories]
    svg = em.embedding_map(points, categories, title="12,000 items")
    assert svg == em.embedding_map(points, categories, title="12,000 items")
    assert len(svg) < 300_000
    assert 'aria-label="12,000 items: 12000 items in 20 categories"' in svg
    ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    assert "http" not in re.sub(r"data:[^\"]*", "", svg)
    assert opaque(svg).mean() > 0.02


def test_numbers_stand_at_the_medians_and_only_for_categories(monkeypatch):
    written = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.text", lambda self, x, y, text, **style: written.append((x, y, text))
    )
    points = np.array([[0, 0], [1, 2], [9, 9], [5, 5], [7, 1]], float)
    em.embedding_map(points, np.array([3, 3, 3, 12, -1]), title="t")
    assert written == [(1, 2, "3"), (5, 5, "12")]


def test_categories_of_one_colour_differ_by_marker_and_items_without_one_are_grey(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.scatter", lambda self, x, y, **style: drawn.append((len(x), style))
    )
    categories = np.repeat(np.arange(-1, 14), 3)
    em.embedding_map(np.random.default_rng(1).random((45, 2)), categories, title="t")
    (count, grey), *named = drawn
    assert (count, grey["c"]) == (3, em._NO_CATEGORY)
    assert all(style["s"] > grey["s"] and style["rasterized"] for _, style in named)
    assert len({(style["c"], style["marker"]) for _, style in named}) == 14
    assert {style["marker"] for _, style in named[:6]} == {"o"}
    assert len({style["c"] for _, style in named}) == 6
    assert em._NO_CATEGORY not in em.COLOURS


def test_impossible_maps_are_refused():
    for points, categories in (
        (np.zeros((0, 2)), np.zeros(0, int)),
        (np.zeros((3, 2)), np.zeros(2, int)),
        (np.array([[0, np.nan]]), np.zeros(1, int)),
    ):
        with pytest.raises(UserError, match="plot 'm': "):
            em.embedding_map(points, categories, title="m")


def test_points_keep_groups_apart_and_depend_on_the_seed_only():
    generator = np.random.default_rng(2)
    groups = generator.integers(0, 3, 60)
    vectors = 8 * np.eye(3, 10)[groups] + generator.normal(0, 1, (60, 10))
    items, points = em.map_points(vectors, seed=4)
    again = em.map_points(vectors, seed=4)[1]
    assert items.tolist() == list(range(60)) and points.shape == (60, 2)
    np.testing.assert_array_equal(points, again)
    assert em.neighbour_purity(points, groups) > 0.95
    assert trustworthiness(vectors, points, n_neighbors=5) > 0.75


@pytest.mark.parametrize(("items", "perplexity"), [(31, 10.0), (400, 30.0)])
def test_t_sne_gets_the_seed_and_a_perplexity_that_fits(monkeypatch, items, perplexity):
    asked = []

    class Flat:
        def __init__(self, **settings):
            asked.append(settings)

        def fit_transform(self, vectors):
            return vectors[:, :2]

    # Of few items t-SNE makes the same map under any seed; of many it takes a minute.
    monkeypatch.setattr("sklearn.manifold.TSNE", Flat)
    em.map_points(np.eye(items, 3), seed=11)
    assert asked == [{"init": "pca", "random_state": 11, "perplexity": perplexity}]


def test_more_items_than_wanted_are_a_sample_of_the_seed():
    vectors = np.random.default_rng(3).random((40, 5))
    first, points = em.map_points(vectors, seed=0, most=12)
    assert len(first) == len(points) == len(set(first.tolist())) == 12
    assert first.tolist() == sorted(first.tolist()) and first.max() > 12
    assert first.tolist() == em.map_points(vectors, seed=0, most=12)[0].tolist()
    assert first.tolist() != em.map_points(vectors, seed=1, most=12)[0].tolist()


@pytest.mark.parametrize("shape", [(3, 5), (10, 1)])
def test_a_map_needs_items_and_dimensions(shape):
    with pytest.raises(UserError, match=f"{shape[0]} items of {shape[1]} dimensions"):
        em.map_points(np.ones(shape), seed=0)


def brute_force_purity(vectors, categories, k):
    inside = [i for i in range(len(vectors)) if categories[i] >= 0]
    mean = np.mean([vectors[i] for i in inside], axis=0)
    shares = []
    for i in inside:
        a = vectors[i] - mean
        angles = []
        for j in inside:
            b = vectors[j] - mean
            if j != i:
                angles.append((-(a @ b) / np.sqrt((a @ a) * (b @ b)), j))
        nearest = [j for _, j in sorted(angles)[:k]]
        shares.append(np.mean([categories[j] == categories[i] for j in nearest]))
    return np.mean(shares)


@pytest.mark.parametrize("k", [1, 4, 10, 100])
def test_purity_by_brute_force_whatever_the_chunks(monkeypatch, k):
    generator = np.random.default_rng(5)
    categories = generator.integers(-1, 4, 60)
    # A large common direction and own lengths: neither centring nor lengths may be left out.
    vectors = generator.normal(0, 1, (60, 6)) + np.eye(4, 6)[np.abs(categories)]
    vectors = vectors * generator.uniform(0.2, 5, (60, 1)) + 3
    wanted = brute_force_purity(vectors, categories, k)
    assert em.neighbour_purity(vectors, categories, k) == pytest.approx(wanted)
    monkeypatch.setattr(em, "_AT_ONCE", 300)
    assert em.neighbour_purity(vectors, categories, k) == pytest.approx(wanted)


def test_chance_by_hand_and_what_random_vectors_give():
    assert em.chance_purity(np.array([0, 0, 0, 1, -1])) == (3 * 2 + 1 * 0) / (4 * 3)
    generator = np.random.default_rng(6)
    categories = generator.choice(3, 1500, p=[0.6, 0.3, 0.1])
    random = em.neighbour_purity(generator.normal(0, 1, (1500, 20)), categories)
    assert random == pytest.approx(em.chance_purity(categories), abs=0.03)


def test_purity_needs_two_items_and_chance_one():
    with pytest.raises(UserError, match="1 items with a category"):
        em.neighbour_purity(np.ones((3, 2)), np.array([0, -1, -1]))
    with pytest.raises(UserError, match="k 0"):
        em.neighbour_purity(np.ones((3, 2)), np.zeros(3, int), 0)
    with pytest.raises(UserError, match="no item has a category"):
        em.chance_purity(np.array([-1]))
