import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from delrec_jax.p2rec.preferences import (
    constant_prediction,
    squared_errors,
    top_category_hits,
)

TARGETS = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.25, 0.75, 0.0], [0.25] * 4], np.float32)


def test_squared_errors_by_hand():
    predicted = np.array([[0.25] * 4, [0.0, 0.25, 0.75, 0.0], [1, 0, 0, 0]], np.float32)
    errors = squared_errors(predicted, TARGETS)
    assert errors.tolist() == [0.0625, 0.0, (0.5625 + 3 * 0.0625) / 4]
    # In float32 the square would be rounded.
    third, fifth = np.full((1, 1), 1 / 3, np.float32), np.full((1, 1), 1 / 5, np.float32)
    assert squared_errors(third, fifth).item() == (third.item() - fifth.item()) ** 2


@pytest.mark.parametrize(
    ("predicted", "hits"),
    [
        ([[0.4, 0.3, 0.2, 0.1]] * 3, [1, 0, 1]),  # the first is among the two tops of user 0
        ([[0.1, 0.2, 0.3, 0.4]] * 3, [0, 0, 1]),
        ([[0.25] * 4] * 3, [0.5, 0.25, 1]),  # a constant wins no more than chance
        ([[0.0, 0.4, 0.4, 0.2]] * 3, [0.5, 0.5, 1]),
        ([[-3.0, -1.0, -1.0, -1.0]] * 3, [1 / 3, 1 / 3, 1]),  # logits will do
        ([[np.nan] * 4] * 3, [0, 0, 0]),
    ],
)
def test_top_category_hits_by_hand(predicted, hits):
    np.testing.assert_allclose(top_category_hits(np.array(predicted), TARGETS), hits)


@given(
    arrays.arrays(np.float64, (3, 4), elements=st.integers(0, 3).map(float)),
    arrays.arrays(np.float64, (3, 4), elements=st.integers(1, 3).map(float)),
)
def test_top_category_hits_by_trying_each_tied_guess(predicted, targets):
    for row, target, value in zip(
        predicted, targets, top_category_hits(predicted, targets), strict=True
    ):
        guesses = [k for k in range(4) if row[k] == max(row)]
        assert value == pytest.approx(np.mean([target[k] == max(target) for k in guesses]))


def test_a_user_without_a_target_is_not_judged():
    targets = np.array([[0.5, 0.5], [0, 0]], np.float32)
    with pytest.raises(ValueError, match="row 1 of the targets"):
        top_category_hits(np.ones((2, 2)), targets)


def test_constant_prediction_is_the_mean_of_those_who_have_a_target():
    targets = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 0], [0, 0.25, 0.75]], np.float32)
    assert constant_prediction(targets).tolist() == [0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="no training user"):
        constant_prediction(np.zeros((2, 3), np.float32))


@given(arrays.arrays(np.float64, (5, 3), elements=st.integers(1, 4).map(float)), st.data())
def test_no_other_constant_has_a_smaller_error(counts, data):
    targets = counts / counts.sum(axis=1, keepdims=True)
    best = constant_prediction(targets)
    step = np.array(data.draw(st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3)))
    error = squared_errors(np.tile(best, (5, 1)), targets).mean()
    assert error <= squared_errors(np.tile(best + step, (5, 1)), targets).mean() + 1e-12
