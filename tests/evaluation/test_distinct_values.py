"""Many users are resampled by their distinct values: exact moments, and the figures that user by user would give."""

import numpy as np
import pytest

from delrec_jax.evaluation import distinct_values, metrics, resampling_blocks, significance

USERS = 3_000
RANKS = np.random.default_rng(0).choice([1.0, 2, 3, 5.5, 10, 11, 40], USERS)
VALUES = np.stack([metrics.metrics_of_ranks(RANKS)[name] for name in ("HR@1", "NDCG@10")], axis=1)


def distinct(values):
    return np.unique(values, axis=0, return_counts=True)


def test_means_have_the_moments_of_draws_with_replacement():
    generator = np.random.default_rng(1)
    means = distinct_values.resampled_means(
        *distinct(VALUES), generator=generator, resamples=20_000
    )
    assert means.shape == (20_000, 2)
    np.testing.assert_allclose(means.mean(axis=0), VALUES.mean(axis=0), atol=4e-4)
    # Both columns share their draws, so their covariance is that of the users.
    np.testing.assert_allclose(np.cov(means.T), np.cov(VALUES.T, ddof=0) / USERS, rtol=0.05)


def test_signs_have_the_moments_of_independent_ones():
    moved = np.array([0.5, -0.5, 0.5, 1.0, -0.25, 0.25, 0.25])
    totals = distinct_values.random_sign_totals(
        *distinct(np.abs(moved)), generator=np.random.default_rng(2), resamples=100_000
    )
    assert abs(totals.mean()) < 0.02
    np.testing.assert_allclose(totals.var(), (moved**2).sum(), rtol=0.02)
    # All seven positive: once in 128 patterns, and all negative as often.
    share = (np.abs(totals) >= np.abs(moved).sum() - 1e-9).mean()
    assert share == pytest.approx(2 / 128, abs=0.002)


def test_one_distinct_value_is_its_own_mean():
    means = distinct_values.resampled_means(
        *distinct(np.full((7, 1), 0.3)), generator=np.random.default_rng(0), resamples=5
    )
    np.testing.assert_allclose(means, 0.3)


def test_intervals_and_p_values_of_many_users_are_those_of_few(monkeypatch):
    difference = VALUES[:, 1] - np.random.default_rng(3).permutation(VALUES[:, 1]) + 0
    difference[:150] = 0.2
    plain = metrics.bootstrap_interval(difference, seed=0, resamples=4_000)
    p_value = significance.sign_flip_p_value(difference, seed=0)
    monkeypatch.setattr(distinct_values, "MANY", 100)
    counted = metrics.bootstrap_interval(difference, seed=0, resamples=4_000)
    assert counted.value == plain.value and counted != plain
    assert (counted.low, counted.high) == pytest.approx((plain.low, plain.high), abs=1e-3)
    other = significance.sign_flip_p_value(difference, seed=0)
    assert 0.001 < p_value < 0.9
    assert other == pytest.approx(p_value, abs=4 * (p_value / 10_000) ** 0.5)


@pytest.mark.parametrize(
    ("users", "values", "counted"), [(200, 20, True), (200, 21, False), (100, 1, False)]
)
def test_values_are_counted_where_many_users_have_few(users, values, counted, monkeypatch):
    monkeypatch.setattr(distinct_values, "MANY", 100)
    one = np.arange(users, dtype=float) % values
    for asked in (one, np.stack([one, one], axis=1)):
        assert (distinct_values.counted(asked) is not None) == counted


def test_chunks_change_nothing_but_the_draws(monkeypatch):
    monkeypatch.setattr(resampling_blocks, "_AT_ONCE", 50)
    means = distinct_values.resampled_means(
        *distinct(VALUES), generator=np.random.default_rng(1), resamples=2_000
    )
    np.testing.assert_allclose(means.mean(axis=0), VALUES.mean(axis=0), atol=1e-3)
    totals = distinct_values.random_sign_totals(
        *distinct(np.abs(VALUES[:, 1])), generator=np.random.default_rng(1), resamples=2_000
    )
    assert np.isfinite(totals).all() and len(np.unique(totals)) > 100


def test_values_that_do_not_repeat_have_the_interval_of_draws_user_by_user(monkeypatch):
    """Reciprocal ranks in a large catalogue; with a second column the draws are shared, as over seeds."""
    ranks = np.random.default_rng(0).zipf(1.3, USERS) + np.random.default_rng(1).random(USERS)
    values = np.stack([1 / ranks, 1 / ranks**0.5], axis=1)
    plain = metrics.bootstrap_intervals(values, seed=0, resamples=4_000)
    monkeypatch.setattr(distinct_values, "MANY", 100)
    assert distinct_values.counted(values) is None
    normal = metrics.bootstrap_intervals(values, seed=0, resamples=4_000)
    for one, other in zip(plain, normal, strict=True):
        width = one.high - one.low
        assert one != other and one.value == other.value
        assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.06 * width)
    drawn = distinct_values.means_of_many(
        values, generator=np.random.default_rng(1), resamples=20_000
    )
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(values.T, ddof=0) / USERS, rtol=0.05)


def test_many_users_columns_are_counted_apart(monkeypatch):
    """One column whose values do not repeat leaves the others as they were."""
    monkeypatch.setattr(distinct_values, "MANY", 100)
    mixed = np.stack([VALUES[:, 0], np.random.default_rng(2).random(USERS)], axis=1)
    alone = metrics.bootstrap_intervals(VALUES[:, :1], seed=0)
    assert metrics.bootstrap_intervals(mixed, seed=0)[0] == alone[0]
