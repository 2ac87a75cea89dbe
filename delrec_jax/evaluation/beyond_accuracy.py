"""What recommended lists say of a system beyond accuracy: coverage, popularity bias, novelty, agreement with another system.

With I items, of which item i has c(i) interactions in the training part, and users u with lists L(u) of at most 10 items:

    coverage       = |union of all L(u)| / I
    concentration  = sum over k = 1..I of (2k - I - 1) e(k) / ((I - 1) sum of e), the Gini index of the exposures e (the number
                     of lists that hold an item) in ascending order: 0 if all items are shown equally often
    percentile(i)  = (items j with c(j) < c(i) + half of the other items with c(j) = c(i)) / (I - 1)
    popularity     = mean over users of the mean percentile of L(u)
    novelty        = mean over users of the mean of -log2 p(i) over L(u), p(i) = (c(i) + 1) / (sum of c + I)
    jaccard        = mean over users of |A(u) and B(u)| / |A(u) or B(u)| for the lists of two systems
    same_first     = share of users for whom both systems have the same first item

Sources: catalog coverage, Ge et al., Beyond accuracy (RecSys 2010); Gini index of exposure, Shani and Gunawardana, Evaluating
recommendation systems (2011); popularity bias, Abdollahpouri et al., The unfairness of popularity bias (2019), here by
percentiles, which do not depend on a corpus' size; novelty as self-information, Zhou et al., PNAS 107 (2010), with one added
interaction per item, so that an item without any has a finite novelty. Users with an empty list count for none of the means.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from delrec_jax.errors import UserError
from delrec_jax.evaluation.parquet_tables import read_parquet
from delrec_jax.evaluation.top_lists import items_of, read_lists
from delrec_jax.padding import PAD_ITEM

MEASURES = ("coverage", "concentration", "popularity", "novelty", "jaccard", "same_first")
"""The measures of a system, in the order of tables."""

TARGETS = "targets"
"""In place of a system's name: the items that the users took."""

REFERENCE = "teacher"
"""The system with which agreement is measured."""

NOT_RECORDED = (
    "Coverage, popularity bias, novelty and agreement of the recommended lists: not recorded, as an earlier version evaluated "
    "this workdir; `delrec evaluate` with an empty records folder records them."
)

_RUN = ("teacher", "seed")


def coverage(lists: Int[np.ndarray, "U n"], num_items: int) -> float:
    """The share of the catalogue that occurs in any list, in [0, 1].

    Args:
      lists: items, padded with -1.
      num_items: size of the catalogue.
    """
    return len(np.unique(lists[lists > PAD_ITEM])) / num_items


def concentration(lists: Int[np.ndarray, "U n"], num_items: int) -> float:
    """The Gini index of how often each item is shown: 0 (all equally often) to 1 (always the same one).

    Args:
      lists: items, padded with -1.
      num_items: size of the catalogue.

    Raises:
      UserError: all lists are empty.
    """
    exposures = np.sort(np.bincount(lists[lists > PAD_ITEM], minlength=num_items))
    if not exposures.any():
        raise UserError("recommended lists: all are empty; evaluate the workdir again")
    places = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(places @ exposures / (max(num_items - 1, 1) * exposures.sum()))


def popularity_percentiles(interactions: Int[np.ndarray, "I"]) -> Float[np.ndarray, "I"]:
    """The share of the other items that are less popular than each, those that are as popular counted half, in [0, 1]."""
    from scipy import stats  # imported late: half a second

    ranks: np.ndarray = stats.rankdata(interactions, method="average") - 1
    return ranks / max(len(interactions) - 1, 1)


def self_information(interactions: Int[np.ndarray, "I"]) -> Float[np.ndarray, "I"]:
    """The novelty of each item in bits: -log2 of its share of the training interactions, with one more for each item."""
    more = np.asarray(interactions, np.float64) + 1
    found: np.ndarray = -np.log2(more / more.sum())
    return found


def mean_over_users(lists: Int[np.ndarray, "U n"], of_item: Float[np.ndarray, "I"]) -> float:
    """The mean over users of the mean over their list of a quantity of items.

    Args:
      lists: items, padded with -1; users with an empty list are left out.
      of_item: the quantity of each item.

    Raises:
      UserError: all lists are empty.
    """
    filled = lists > PAD_ITEM
    asked = filled.any(axis=1)
    if not asked.any():
        raise UserError("recommended lists: all are empty; evaluate the workdir again")
    sums = np.where(filled, of_item[lists], 0.0).sum(axis=1)
    return float((sums[asked] / filled[asked].sum(axis=1)).mean())


def agreement(lists: Int[np.ndarray, "U n"], others: Int[np.ndarray, "U n"]) -> tuple[float, float]:
    """How much two systems' lists for the same users agree.

    Args:
      lists: distinct items per user, padded with -1 at the end.
      others: those of the other system; users for whom one of the lists is empty are left out.

    Returns:
      The mean Jaccard index of the lists as sets, and the share of users with the same first item, both in [0, 1].

    Raises:
      UserError: no user has two lists, or the numbers of users differ.
    """
    if len(lists) != len(others):
        raise UserError(
            f"recommended lists: {len(lists)} users of one system, {len(others)} of the other; compare the same users"
        )
    both = (lists[:, 0] > PAD_ITEM) & (others[:, 0] > PAD_ITEM)
    if not both.any():
        raise UserError("recommended lists: no user has lists of both systems; evaluate again")
    one, other = lists[both], others[both]
    shared = ((one[:, :, None] == other[:, None, :]) & (one > PAD_ITEM)[:, :, None]).sum((1, 2))
    sizes = (one > PAD_ITEM).sum(axis=1) + (other > PAD_ITEM).sum(axis=1)
    return float((shared / (sizes - shared)).mean()), float((one[:, 0] == other[:, 0]).mean())


def read_rows(folder: Path) -> list[dict[str, Any]] | None:
    """`measure_rows` of a folder of records; None if that evaluation did not record the lists.

    Raises:
      UserError: a file is broken.
    """
    found = read_lists(folder)
    if found is None:
        return None
    records = read_parquet(folder / "records.parquet")
    targets = records.unique("user").sort("user")["target"].to_numpy()
    return measure_rows(*found, targets)


def measure_rows(
    lists: pl.DataFrame,
    interactions: Int[np.ndarray, "I"],
    targets: Int[np.ndarray, "U"],
) -> list[dict[str, Any]]:
    """The measures of every system, in the order of the lists, and first those of the targets.

    Args:
      lists: those of all systems, from `top_lists.read_lists`.
      interactions: of each item, in the training part.
      targets: the item that each user took.

    Returns:
      Rows {system, teacher, seed, users, *MEASURES}. `users` is the number of lists that are not empty. The two measures of
      agreement are with the teacher of the same run (teacher and seed), and None where it has no lists or is the system
      itself. The row of the `TARGETS` has no teacher, the seed -1, and of the measures popularity and novelty alone.
    """
    of_item = popularity_percentiles(interactions), self_information(interactions)
    nothing: dict[str, Any] = dict.fromkeys(MEASURES)
    popularity, novelty = (mean_over_users(targets[:, None], one) for one in of_item)
    told = {"system": TARGETS, "teacher": "", "seed": -1, "users": len(targets)}
    rows = [{**told, **nothing, "popularity": popularity, "novelty": novelty}]
    systems = {
        key: items_of(table.sort("user"))
        for key, table in lists.partition_by("system", *_RUN, as_dict=True).items()
    }
    for (system, *run), items in systems.items():
        reference = None if system == REFERENCE else systems.get((REFERENCE, *run))
        agreed = agreement(items, reference) if reference is not None else (None, None)
        values = (
            coverage(items, len(interactions)),
            concentration(items, len(interactions)),
            *(mean_over_users(items, one) for one in of_item),
            *agreed,
        )
        told = dict(zip(("system", *_RUN), (system, *run), strict=True))
        told["users"] = int((items[:, 0] > PAD_ITEM).sum())
        rows.append(told | dict(zip(MEASURES, values, strict=True)))
    return rows


def agreement_of_seeds(tables: Sequence[Int[np.ndarray, "U n"]]) -> float | None:
    """The mean Jaccard index over all pairs of one system's runs, which differ by seed alone; None if there are no two."""
    pairs = [(a, b) for place, a in enumerate(tables) for b in tables[place + 1 :]]
    return float(np.mean([agreement(*pair)[0] for pair in pairs])) if pairs else None
