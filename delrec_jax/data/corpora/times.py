"""Times of raw tables: conversion to whole seconds without losing order, and recognition of positions."""

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64


def whole_seconds(interactions: pl.DataFrame, *, per_second: int = 1) -> pl.DataFrame:
    """Converts `time` to whole seconds (Int64), for sources with a finer resolution.

    Ties are later broken by the order of the table, so a user's rows within the same second are put into their true order
    among the places that they occupy; all other rows stay where they are.

    Args:
      interactions: Columns `user` and `time` (Int64 or Float64), and others.
      per_second: Units of `time` per second.
    """
    if per_second == 1 and interactions["time"].dtype == pl.Int64:
        return interactions
    seconds = interactions.with_columns((pl.col("time") // per_second).cast(pl.Int64))
    by_user_and_time = pl.arg_sort_by("user", "time", maintain_order=True)
    places = seconds.select(by_user_and_time).to_series().to_numpy()
    source = np.empty(len(places), np.int64)
    source[places] = interactions.select(by_user_and_time).to_series().to_numpy()
    return seconds[source]


def times_are_positions(user: Int32[np.ndarray, "N"], time: Int64[np.ndarray, "N"]) -> bool:
    """Whether every user's different times are 0, 1, 2, ... or 1, 2, 3, ...: positions, or numbers of baskets, no times.

    Args:
      user: Each row's user, numbered from 0 without gaps.
      time: Each row's time.
    """
    if not len(time) or time.min() < 0:
        return False
    lengths = np.bincount(user)
    if np.any(time > lengths[user]):
        return False  # real times end here, so the arrays below are small
    first, last = np.full(len(lengths), len(time)), np.zeros(len(lengths), np.int64)
    np.minimum.at(first, user, time)
    np.maximum.at(last, user, time)
    starts = np.cumsum(lengths + 1) - lengths - 1
    different = np.zeros(len(time) + len(lengths), bool)
    different[starts[user] + time] = True
    counts = np.add.reduceat(different, starts)
    # Without a gap there are as many different times as places between the first and the last.
    return bool(np.all(first <= 1) and np.all(counts == last - first + 1))
