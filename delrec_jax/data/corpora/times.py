"""Times of raw tables: to whole seconds without losing order, and telling times from positions."""

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64


def whole_seconds(interactions: pl.DataFrame, *, per_second: int = 1) -> pl.DataFrame:
    """Makes `time` whole seconds (Int64), for sources that are finer.

    Rows at one time stand in the order of the table, so a user's rows within one second change places with one another
    until the table has them in their true order; every other row stays where it is.

    Args:
      interactions: Columns `user` and `time` (Int64 or Float64), and others.
      per_second: Units of `time` in a second.
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
    """Whether every user's times, sorted, are 0, 1, 2, ... or 1, 2, 3, ...: an order, and no times.

    Args:
      user: Each row's user, from 0, all of them occurring.
      time: Each row's time.
    """
    if not len(time) or time.min() < 0:
        return False
    lengths = np.bincount(user)
    if np.any(time > lengths[user]):
        return False  # true times end here, so the rest is for small numbers only
    first = np.full(len(lengths), len(time))
    np.minimum.at(first, user, time)
    starts = np.cumsum(lengths) - lengths
    places = starts[user] + time - first[user]
    # Each place of each user is taken once, so there is no gap and no repeat; a start beyond 1 was too long above.
    return bool(np.all(np.bincount(places, minlength=len(time)) == 1))
