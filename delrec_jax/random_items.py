"""Distinct random items: for many rows at once, each with a stream of its own, or for one row with a generator.

The catalogue is read only for rows that leave few of its items. A stream is a function of a 64-bit key and a counter (the
finalizer of SplitMix64, Steele et al. 2014, "Fast splittable pseudorandom number generators"), so any part of any row's stream
can be computed at any time, for all rows in a few array operations, and no row's numbers depend on another's.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt64

from delrec_jax.errors import UserError

_STEP = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_CELLS = 1 << 20  # numbers per step of the exact method (`_by_order`)


def stream_keys(stream: str, names: Sequence[str]) -> UInt64[np.ndarray, "U"]:
    """Returns a key for each name, from a hash of stream and name; the same in all processes and versions."""
    start = hashlib.blake2b(f"{stream}/".encode(), digest_size=8)
    keys = bytearray()
    for name in names:
        one = start.copy()
        one.update(name.encode())
        keys += one.digest()
    return np.frombuffer(bytes(keys), "<u8").astype(np.uint64)


def row_keys(stream: str, rows: Int[np.ndarray, "U"]) -> UInt64[np.ndarray, "U"]:
    """Returns a key for each row number: outputs of the SplitMix64 stream that starts at the hash of `stream`."""
    start = stream_keys(stream, [""])
    keys: UInt64[np.ndarray, U] = _numbers(start[:, None], rows.astype(np.uint64))[0]
    return keys


def stream_place(keys: UInt64[np.ndarray, "U"], count: int) -> Int64[np.ndarray, "U"]:
    """Returns one uniform position below `count` for each key; `distinct_items` uses other numbers of the stream."""
    return (_numbers(keys[:, None], np.zeros(1, np.uint64))[:, 0] % np.uint64(count)).astype(int)


def distinct_items(
    keys: UInt64[np.ndarray, "U"],
    count: int,
    *,
    num_items: int,
    excluded: Int64[np.ndarray, "_"],
) -> Int32[np.ndarray, "U count"]:
    """Returns the first `count` different items of each stream that are not excluded, uniform and in random order.

    Args:
      keys: Keys from `stream_keys`.
      count: Items per row; every row must have at least this many left.
      num_items: I, the size of the catalogue.
      excluded: `row * I + item` of each item that a row must not get, ascending and unique.
    """
    left = num_items - np.bincount(excluded // num_items, minlength=len(keys))
    # A row with few items left would need many draws: sorting the whole catalogue is quicker there.
    sparse = left < max(4 * count, num_items // 2)
    result = np.empty((len(keys), count), np.int32)
    for rows in _groups(np.flatnonzero(sparse), max(1, _CELLS // num_items)):
        result[rows] = _by_order(keys, rows, count, num_items=num_items, excluded=excluded)
    rows, width = np.flatnonzero(~sparse), count + count // 4 + 4
    while len(rows):
        draws = _numbers(keys[rows, None], np.arange(1, width + 1, dtype=np.uint64))
        draws %= np.uint64(num_items)  # the bias is below I / 2**64
        fresh = _fresh(draws.astype(np.int64), rows, num_items=num_items, excluded=excluded)
        rank = np.cumsum(fresh, axis=1, dtype=np.int32)
        done = rank[:, -1] >= count
        first = fresh[done] & (rank[done] <= count)
        result[rows[done]] = draws[done][first].reshape(-1, count)
        rows, width = rows[~done], 2 * width  # a longer start of the same stream
    return result


def other_items(
    known: Int[np.ndarray, "K"],
    taken: Int[np.ndarray, "T"],
    count: int,
    rng: np.random.Generator,
    *,
    remedy: str,
) -> Int[np.ndarray, "count"]:
    """Returns `count` different items of `known` that are not in `taken`, uniform and in random order.

    The draw is that of `rng.choice(np.setdiff1d(known, taken), count, replace=False)`, but the catalogue is not read: places
    are drawn among those that are left, and then moved past the taken ones.

    Args:
      known: items to draw from, ascending and unique.
      taken: items that must not be drawn, with repeats and in any order; some may be unknown.
      count: number of items.
      rng: the generator.
      remedy: what the user can do if there are too few.

    Raises:
      UserError: fewer than `count` items are left.
    """
    closed = np.unique(_places(known, taken)[1])
    left = len(known) - len(closed)
    if count > left:
        raise UserError(
            f"{count} random items are needed that the training part has and the user has not had, but {left} of "
            f"{len(known)} are left: {remedy}"
        )
    drawn = rng.choice(left, count, replace=False)
    drawn += np.searchsorted(closed - np.arange(len(closed)), drawn, side="right")
    items: Int[np.ndarray, count] = known[drawn]
    return items


def taken_codes(
    known: Int[np.ndarray, "K"], taken: Int[np.ndarray, "U T"]
) -> Int64[np.ndarray, "_"]:
    """Returns `row * K + place in known` of each taken item, ascending and unique, as `distinct_items` excludes them.

    Args:
      known: items, ascending and unique.
      taken: each row's items, with repeats and in any order; those that are not known (or padding) are left out.
    """
    rows, places = _places(known, taken)
    codes = rows * len(known) + places
    codes.sort()
    once: Int64[np.ndarray, _] = codes[np.diff(codes, prepend=-1) > 0]
    return once


def _places(
    known: Int[np.ndarray, "K"], taken: Int[np.ndarray, "*U T"]
) -> tuple[Int64[np.ndarray, "_"], Int64[np.ndarray, "_"]]:
    """Returns the rows (first indices) of the taken items that are known, and their places among the known ones."""
    places = np.searchsorted(known, taken)
    found = known[np.minimum(places, len(known) - 1)] == taken
    return np.nonzero(found)[0], places[found]


def _fresh(
    draws: Int64[np.ndarray, "U W"],
    rows: Int64[np.ndarray, "U"],
    *,
    num_items: int,
    excluded: Int64[np.ndarray, "_"],
) -> Bool[np.ndarray, "U W"]:
    """Returns which draws are neither excluded nor a repeat of an earlier draw of their row."""
    width = draws.shape[1]
    bits = width.bit_length()
    # Item and position in one number: when sorted, repeats are adjacent, the earliest first.
    packed = np.sort(draws << bits | np.arange(width), axis=1)
    items, places = packed >> bits, packed & ((1 << bits) - 1)
    fresh = ~_contains(excluded, rows[:, None] * num_items + items)
    fresh[:, 1:] &= items[:, 1:] != items[:, :-1]
    in_order = np.empty_like(fresh)
    np.put_along_axis(in_order, places, fresh, axis=1)
    return in_order


def _by_order(
    keys: UInt64[np.ndarray, "U"],
    rows: Int64[np.ndarray, "R"],
    count: int,
    *,
    num_items: int,
    excluded: Int64[np.ndarray, "_"],
) -> Int64[np.ndarray, "R count"]:
    """Shuffles the whole catalogue for each row: items are sorted by their numbers in the stream, excluded ones last."""
    numbers = _numbers(keys[rows, None], np.arange(1, num_items + 1, dtype=np.uint64))
    numbers >>= np.uint64(1)  # so that none is as high as an excluded item's
    codes = rows[:, None] * num_items + np.arange(num_items)
    numbers[_contains(excluded, codes)] = np.iinfo(np.uint64).max
    return np.argsort(numbers, axis=1, kind="stable")[:, :count]


def _numbers(
    keys: UInt64[np.ndarray, "U 1"], counters: UInt64[np.ndarray, "W"]
) -> UInt64[np.ndarray, "U W"]:
    """Returns the streams' numbers at these counters; uint64 arithmetic wraps around, as intended."""
    mixed = keys + counters * _STEP
    for shift, factor in _ROUNDS:
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return mixed ^ mixed >> np.uint64(31)


def _contains(codes: Int64[np.ndarray, "_"], asked: Int64[np.ndarray, "U W"]) -> np.ndarray:
    """Returns which of the asked numbers are among the ascending `codes`."""
    if not len(codes):
        return np.zeros(asked.shape, bool)
    places = np.searchsorted(codes, asked)
    found: np.ndarray = codes[np.minimum(places, len(codes) - 1)] == asked
    return found


def _groups(rows: Int64[np.ndarray, "_"], size: int) -> list[np.ndarray]:
    """Returns the rows in groups of at most `size`."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
