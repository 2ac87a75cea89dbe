"""Kendall's tau of many rows at once, against scipy row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from delrec_jax.delrec import agreement


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.sampled_from([2, 4, 1000]))
def test_every_row_is_scipys(seed, items, values):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, values, (2, 6, items)).astype(np.float64)
    a = a.astype(np.float32)  # a model's scores beside a teacher's
    a[0] = 1.0  # all tied
    b[1] = a[1][::-1]
    a[2, 0], b[2, -1] = -np.inf, -np.inf  # an item that a system cannot score
    a[3, 0] = np.nan
    found = agreement.kendall_tau(a, b)
    expected = [stats.kendalltau(*pair).statistic for pair in zip(a, b, strict=True)]
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found[[0, 3]]).all()


def test_rows_are_compared_in_groups(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 20))
    whole = agreement.kendall_tau(a, b)
    monkeypatch.setattr(agreement, "_PAIRS", 2 * 20 * 20)
    np.testing.assert_array_equal(agreement.kendall_tau(a, b), whole)
    expected = [stats.kendalltau(*pair).statistic for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(whole, expected, rtol=1e-15)
    assert agreement.kendall_tau(a[:0], b[:0]).shape == (0,)
    assert np.isnan(agreement.kendall_tau(a[:, :1], b[:, :1])).all()  # one item has no order
    assert whole == pytest.approx(agreement.kendall_tau(b, a))
