from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.errors import UserError
from delrec_jax.teachers.windows import training_rows

CASES = {
    "lengths": st.lists(st.integers(0, 13), min_size=1, max_size=12).filter(lambda x: max(x) > 1),
    "length": st.integers(1, 7),
}


def rows_of(lengths, length):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.arange(offsets[-1], dtype=np.int32)  # unique, so that an item names its place
    return offsets, training_rows(offsets, items, length=length)


def test_rows_by_hand():
    # Labels a user: 4 (windows of 3 and 1), 0, 1, 2. The longest window comes first, then the one that fits best.
    _, rows = rows_of([5, 1, 2, 3], 3)
    assert rows.items.tolist() == [[1, 2, 3], [8, 9, 0], [6, -1, -1]]
    assert rows.labels.tolist() == [[2, 3, 4], [9, 10, 1], [7, -1, -1]]
    assert rows.segments.tolist() == [[1, 1, 1], [1, 1, 2], [1, 0, 0]]


@settings(max_examples=100)
@given(**CASES)
def test_every_label_is_there_exactly_once_behind_its_item(lengths, length):
    offsets, rows = rows_of(lengths, length)
    known = rows.labels >= 0
    expected = [place for lo, hi in pairwise(offsets) for place in range(lo + 1, hi)]
    assert sorted(rows.labels[known].tolist()) == expected
    np.testing.assert_array_equal(rows.labels[known], rows.items[known] + 1)
    np.testing.assert_array_equal(known, rows.items >= 0)
    np.testing.assert_array_equal(known, rows.segments > 0)
    assert known.any(axis=1).all()


@settings(max_examples=100)
@given(**CASES)
def test_a_segment_is_one_window_of_one_user_and_all_but_the_first_are_full(lengths, length):
    offsets, rows = rows_of(lengths, length)
    windows = []
    for items, segments in zip(rows.items, rows.segments, strict=True):
        for segment in range(1, segments.max() + 1):
            places = np.flatnonzero(segments == segment)
            assert (np.diff(places) == 1).all()
            assert (np.diff(items[places]) == 1).all()
            windows.append((int(items[places[0]]), int(items[places[-1]]) + 1))
    expected = []
    for lo, hi in pairwise(offsets):
        while hi - lo > 1:
            begin = max(lo, hi - 1 - length)
            expected.append((begin, hi - 1))
            hi = begin + 1
    assert sorted(windows) == sorted(expected)


def test_short_histories_leave_little_padding():
    lengths = np.random.default_rng(0).geometric(0.15, 2000)
    _, rows = rows_of(lengths, 50)
    assert (rows.items >= 0).mean() > 0.97


def test_nothing_to_learn_is_an_error():
    with pytest.raises(UserError, match="no user has two interactions"):
        training_rows(np.array([0, 1, 2]), np.array([3, 4]), length=5)
