"""Item embeddings as a picture, and as one number that does not depend on the picture.

A two-dimensional map invents and hides neighborhoods; `neighbour_purity` measures in the
embeddings' own space how often neighbors share a category, `chance_purity` how often by chance.
"""

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib import patheffects
from matplotlib.axes import Axes

from delrec_jax import prng
from delrec_jax.analysis.drawing import INK_ON_COLOR, PALETTE, STYLE, TITLE, new_figure, svg_text
from delrec_jax.errors import UserError

COLOURS = PALETTE[:6]  # the seventh is gray, which stands for no category
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")

_NO_CATEGORY = "#b8c0c8"
_DPI = 140  # sharp enough, and 12,000 points in clusters stay under 300 kB
_FEWEST = 4  # items that a map needs
_ASKED = 20_000  # items whose neighbors are looked for, at most: all pairs would take very long
_AT_ONCE = 4_000_000  # similarities


@dataclass(frozen=True)
class EmbeddingMap:
    """One map of the page."""

    title: str
    points: Float[np.ndarray, "N 2"]
    categories: Int[np.ndarray, "N"]  # -1: the item has none
    note: str = ""  # whose embeddings, and how they were reduced to two dimensions


def embedding_map(
    points: Float[np.ndarray, "N 2"], categories: Int[np.ndarray, "N"], *, title: str
) -> str:
    """The items as points, colored by category, with each category's number at its median.

    With more categories than colors, categories of the same color differ by marker.

    Args:
      points: one place per item.
      categories: category per item; -1 (no category) is small and gray.
      title: above the picture.

    Returns:
      One `<svg>` element; the points are an image inside it.

    Raises:
      UserError: there are no points, one is not finite, or there is not one category for each.
    """
    points, categories = np.asarray(points, np.float64), np.asarray(categories)
    if not len(points) or len(points) != len(categories) or not np.isfinite(points).all():
        raise UserError(
            f"plot '{title}': {len(points)} points (all finite: {np.isfinite(points).all()}) with "
            f"{len(categories)} categories; give one category for each point"
        )
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(height=4.4)
        axes.set_axis_off()
        figure.suptitle(title, **TITLE)
        axes.set_aspect("equal", adjustable="datalim")
        named = np.unique(categories[categories >= 0])
        _scatter(axes, points, categories, named=named)
        _numbers(axes, points, categories, named=named)
        label = f"{title}: {len(points)} items in {len(named)} categories"
        return svg_text(figure, label=label, dpi=_DPI)


def map_points(
    vectors: Float[np.ndarray, "I E"], *, seed: int, most: int = 4000
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n 2"]]:
    """Positions of items on a map by t-SNE, which preserves nearness and little else.

    Args:
      vectors: one embedding per item; finite.
      seed: seed of the sample (stream "embedding-map") and of t-SNE.
      most: if there are more items, a random sample of this many is placed.

    Returns:
      The items placed, ascending, and their points.

    Raises:
      UserError: fewer than 4 items, fewer than 2 dimensions or a value that is not finite.
    """
    # Imported here, as it takes a second and a page does not need it.
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    vectors = np.asarray(vectors, np.float32)
    items, width = vectors.shape
    count = min(items, most)
    if count < _FEWEST or width < 2 or not np.isfinite(vectors).all():
        raise UserError(
            f"embedding map: {count} items of {width} dimensions (all finite: "
            f"{np.isfinite(vectors).all()}); it needs {_FEWEST} items, 2 dimensions and finite values"
        )
    chosen = np.arange(items)
    if items > most:
        drawn = prng.generator(seed, "embedding-map").choice(items, most, replace=False)
        chosen = np.sort(drawn)
    tsne = TSNE(init="pca", random_state=seed, perplexity=min(30.0, (count - 1) / 3))
    with threadpool_limits(1):  # t-SNE amplifies the rounding of threaded sums
        points = tsne.fit_transform(vectors[chosen])
    return chosen, points


def neighbour_purity(
    vectors: Float[np.ndarray, "I E"], categories: Int[np.ndarray, "I"], k: int = 10
) -> float:
    """The share of an item's k nearest neighbors that have its category, averaged over items.

    Nearness is the cosine of the vectors after the mean vector is subtracted (embeddings of a
    language model share one large direction that says nothing about an item). Only items with
    a category count, themselves and as neighbors; of more than 20,000 of them, so many are asked
    for their neighbors. With fewer than k others, all are neighbors.

    Args:
      vectors: one embedding per item.
      categories: category per item; -1 for none.
      k: number of neighbors.

    Raises:
      UserError: fewer than two items with a category, or k below 1.
    """
    chosen = np.asarray(categories) >= 0
    if chosen.sum() < 2 or k < 1:
        raise UserError(
            f"neighbor purity: {chosen.sum()} items with a category, k {k}; it needs 2 items "
            "and 1 neighbor"
        )
    own, near = np.asarray(categories)[chosen], min(k, int(chosen.sum()) - 1)
    centred = np.asarray(vectors, np.float64)[chosen]
    centred = centred - centred.mean(axis=0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    directions = centred / np.where(length > 0, length, 1)
    rows = max(1, _AT_ONCE // len(own))
    asked = prng.generator(0, "neighbor purity").permutation(len(own))[:_ASKED]
    same = 0
    for start in range(0, len(asked), rows):
        these = asked[start : start + rows]
        alike = directions[these] @ directions.T
        alike[np.arange(len(these)), these] = -np.inf  # no item is its own neighbor
        nearest = np.argpartition(-alike, near - 1, axis=1)[:, :near]
        same += int((own[nearest] == own[these, None]).sum())
    return same / (len(asked) * near)


def chance_purity(categories: Int[np.ndarray, "I"]) -> float:
    """The `neighbour_purity` expected for random vectors: how often another item drawn at random has the item's category.

    Args:
      categories: category per item; -1 for none.

    Raises:
      UserError: no item has a category.
    """
    named = np.asarray(categories)
    named = named[named >= 0]
    if not named.size:
        raise UserError("neighbor purity: no item has a category; run `delrec parse` first")
    _, sizes = np.unique(named, return_counts=True)
    return float((sizes * (sizes - 1)).sum() / (named.size * max(1, named.size - 1)))


def _scatter(axes: Axes, points: np.ndarray, categories: np.ndarray, *, named: np.ndarray) -> None:
    """Draws all points as one image, the gray ones under the others."""
    without = points[categories < 0]
    axes.scatter(*without.T, s=3, c=_NO_CATEGORY, linewidths=0, rasterized=True)
    size = float(np.clip(12_000 / len(points), 5, 30))
    for place, category in enumerate(named):
        axes.scatter(
            *points[categories == category].T,
            s=size,
            c=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place // len(COLOURS) % len(MARKERS)],
            linewidths=0,
            rasterized=True,
        )


def _numbers(axes: Axes, points: np.ndarray, categories: np.ndarray, *, named: np.ndarray) -> None:
    """Writes each category's number at its median point, readable on any color."""
    halo = [patheffects.withStroke(linewidth=3, foreground="white")]
    for category in named:
        across, down = np.median(points[categories == category], axis=0)
        axes.text(
            across,
            down,
            str(category),
            ha="center",
            va="center",
            weight="bold",
            color=INK_ON_COLOR,
            path_effects=halo,
        )
