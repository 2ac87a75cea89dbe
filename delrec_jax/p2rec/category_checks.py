"""What latent categories are groups of: popularity, or something that the catalogue also names.

All measures are over the items that have a category. They describe a grouping; nothing is selected by them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_mutual_info_score

_DECILES = 10
_FEWEST = 2  # items per value of an attribute, on average: with fewer, its values are names of single items


def check_categories(
    of_item: Int[np.ndarray, " I"],
    counts: Int[np.ndarray, " I"],
    attributes: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Measures a grouping.

    Args:
      of_item: category of each item; -1 for none.
      counts: training interactions of each item.
      attributes: the catalogue's, one value per item, "" if unknown.

    Returns:
      `popularity_explained`: the share of the variance of log(1 + count) that the categories explain, 0 to 1.
      `popularity_deciles`: adjusted mutual information with the deciles of the counts; 0 is chance, 1 the same grouping.
      `attributes`: adjusted mutual information with each attribute whose values are shared by at least two items on average,
      over the items for which it is known. The full text of a value is one class ("Action Comedy" is another than "Action"):
      what separates several values in one text differs between sources and would have to be guessed.
    """
    named = np.asarray(of_item) >= 0
    groups = np.asarray(of_item)[named]
    popular = np.asarray(counts)[named]
    found = {}
    for name, column in attributes.items():
        values = np.asarray(column, dtype=object)[named]
        stated = values != ""
        different = len(set(values[stated]))
        if different > 1 and stated.sum() >= _FEWEST * different:
            found[name] = _agreement(values[stated].astype(str), groups[stated])
    return {
        "popularity_explained": explained_variance(np.log1p(popular), groups),
        "popularity_deciles": _agreement(_deciles(popular), groups),
        "attributes": found,
    }


def explained_variance(values: Float[np.ndarray, " N"], groups: Int[np.ndarray, " N"]) -> float:
    """The share of the variance of the values that the means of their groups explain (R squared); 0 if the values are equal."""
    values = np.asarray(values, np.float64)
    _, place = np.unique(groups, return_inverse=True)
    means = np.bincount(place, values) / np.bincount(place)
    total = float(((values - values.mean()) ** 2).sum())
    within = float(((values - means[place]) ** 2).sum())
    return 1 - within / total if total > 0 else 0.0


def _deciles(counts: np.ndarray) -> np.ndarray:
    """The tenth of the items that each count lies in; items with equal counts are in the same one."""
    inner = np.quantile(counts, np.arange(1, _DECILES) / _DECILES)
    return np.searchsorted(inner, counts, side="left")


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float(adjusted_mutual_info_score(one, other))
