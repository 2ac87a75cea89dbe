import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delrec_jax.p2rec.preferences import preference_targets


def histories(*rows):
    return [np.array(row, np.int32) for row in rows]


def test_by_hand():
    of_item = np.array([0, 2, 2, -1, 1], np.int32)
    shown = histories([0, 1, 2, 4], [3, 1], [3, 3], [], [2, 2, 0])
    targets = preference_targets(shown, of_item, 4)
    assert targets.dtype == np.float32 and targets.shape == (5, 4)
    # An item without a category does not count, an item that comes twice counts twice.
    expected = [[1 / 4, 1 / 4, 1 / 2, 0], [0, 0, 1, 0], [0] * 4, [0] * 4, [1 / 3, 0, 2 / 3, 0]]
    np.testing.assert_array_equal(targets, np.array(expected, np.float32))


@given(data=st.data())
def test_rows_are_counted_one_by_one(data):
    count = data.draw(st.integers(1, 5))
    items = data.draw(st.integers(1, 8))
    of_item = np.array(
        data.draw(st.lists(st.integers(-1, count - 1), min_size=items, max_size=items)), np.int32
    )
    some = st.lists(st.integers(0, items - 1), max_size=12)
    rows = data.draw(st.lists(some, min_size=1, max_size=6))
    targets = preference_targets(histories(*rows), of_item, count)
    for row, target in zip(rows, targets, strict=True):
        own = [of_item[item] for item in row if of_item[item] >= 0]
        for category in range(count):
            assert target[category] == np.float32(own.count(category) / max(len(own), 1))
        assert target.sum() == pytest.approx(1 if own else 0, abs=1e-6)


def test_no_user_and_no_item():
    assert preference_targets([], np.array([0], np.int32), 3).shape == (0, 3)
    assert preference_targets(histories([]), np.zeros(0, np.int32), 3).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("category", [-2, 3])
def test_a_category_that_would_be_another_user_s_is_refused(category):
    of_item = np.array([0, category], np.int32)
    with pytest.raises(ValueError, match=f"{category}.*expected -1 to 2"):
        preference_targets(histories([0], [1]), of_item, 3)
