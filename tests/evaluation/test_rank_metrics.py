import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from delrec_jax import prng
from delrec_jax.errors import UserError
from delrec_jax.evaluation import metrics, resampling_blocks


def test_hand_worked_metrics():
    values = metrics.metrics_of_ranks(np.array([1, 2, 1.5, 5, 10, 11, np.inf]))
    log = np.log2
    expected = {
        "HR@1": [1, 0, 0, 0, 0, 0, 0],
        "HR@5": [1, 1, 1, 1, 0, 0, 0],
        "HR@10": [1, 1, 1, 1, 1, 0, 0],
        "NDCG@5": [1, 1 / log(3), 1 / log(2.5), 1 / log(6), 0, 0, 0],
        "NDCG@10": [1, 1 / log(3), 1 / log(2.5), 1 / log(6), 1 / log(11), 0, 0],
        "MRR": [1, 0.5, 2 / 3, 0.2, 0.1, 1 / 11, 0],
    }
    assert tuple(values) == metrics.METRICS == tuple(expected)
    for name, column in expected.items():
        np.testing.assert_allclose(values[name], column, err_msg=name)


def test_every_metric_is_one_that_is_known(monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, "Precision@10"))
    with pytest.raises(KeyError, match="Precision"):
        metrics.metrics_of_ranks(np.ones(3))


@pytest.mark.parametrize("bad", [np.nan, 0.5, 0, -1])
def test_impossible_ranks_are_refused(bad):
    with pytest.raises(UserError, match="row 1"):
        metrics.metrics_of_ranks(np.array([1.0, bad]))


@pytest.mark.parametrize(
    ("counts", "share", "head"),
    [
        ([1, 9, 3, 4, 2, 8, 0, 5, 6, 7], 0.2, [1, 5]),
        ([1, 9, 3, 4, 2, 8, 0, 8, 6, 7], 0.2, [1]),  # of two with 8 interactions only one fits
        ([1, 8, 3, 4, 2, 8, 0, 5, 6, 7], 0.2, [1, 5]),  # both fit
        ([5] * 10, 0.2, []),
        ([1, 9, 3, 4, 2, 8, 0, 5, 6], 0.2, [1]),  # a fifth of 9 items is one
        ([2, 0, 0, 0], 0.75, [0]),  # no interactions, no head
        ([2, 0, 1], 1.0, [0, 2]),
        ([0, 0], 0.5, []),
        (range(100, 0, -1), 0.29, range(29)),  # and not 28, as 0.29 * 100 would have it
    ],
)
def test_the_head_is_the_most_popular_share_and_never_more(counts, share, head):
    found = metrics.head_items(np.array(counts), share)
    assert np.flatnonzero(found).tolist() == list(head)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.floats(0.01, 1.0))
def test_the_head_fits_is_all_above_the_rest_and_as_large_as_it_can_be(counts, share):
    counts = np.array(counts)
    head = metrics.head_items(counts, share)
    places = share * len(counts) + 1e-6
    assert head.sum() <= places
    rest = counts[~head]
    assert not head.any() or counts[head].min() > max(0, rest.max(initial=0))
    if rest.max(initial=0) > 0:  # the next count would be too much
        assert head.sum() + (rest == rest.max()).sum() > places - 2e-6


@pytest.mark.parametrize("share", [0, -0.1, 1.2, np.nan])
def test_a_head_share_is_a_share(share):
    with pytest.raises(UserError, match="head items: share"):
        metrics.head_items(np.array([1, 2]), share)


def test_expected_metrics_by_enumerating_the_target():
    probabilities = np.array([[0.1, 0.5, 0.2, 0.0], [0.25, 0.25, 0.3, 0.2]])
    # Ranks by probability, ties at their mean; row 0 misses with probability 0.2.
    ranks = np.array([[3, 1, 2, 4], [2.5, 2.5, 1, 4]])
    expected = metrics.expected_metrics(probabilities)
    for user, name in itertools.product(range(2), metrics.METRICS):
        gains = metrics.metrics_of_ranks(ranks[user])[name]
        assert expected[name][user] == pytest.approx((probabilities[user] * gains).sum()), name
    assert expected["HR@1"].tolist() == [0.5, 0.3]


def test_expected_metrics_agree_with_drawn_targets():
    generator = np.random.default_rng(3)
    probabilities = generator.dirichlet(np.full(12, 0.5))
    drawn = generator.choice(12, 20_000, p=probabilities)
    ranks = stats.rankdata(-probabilities)[drawn]
    expected = metrics.expected_metrics(probabilities[None])
    for name, values in metrics.metrics_of_ranks(ranks).items():
        assert values.mean() == pytest.approx(expected[name][0], abs=0.02), name


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_no_other_ranking_has_a_higher_expected_hit_rate(seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(15))
    other = metrics.metrics_of_ranks(1.0 + generator.permutation(15))
    best = metrics.expected_metrics(probabilities[None])
    for name in metrics.METRICS:
        assert (probabilities * other[name]).sum() <= best[name][0] + 1e-12


@pytest.mark.parametrize("row", [[-0.1, 0.5], [0.7, 0.7], [np.nan, 0.1]])
def test_wrong_probabilities_are_refused(row):
    with pytest.raises(UserError, match="row 1"):
        metrics.expected_metrics(np.array([[0.5, 0.5], row]))


def test_bootstrap_equals_scipy_on_the_same_draws():
    values = np.random.default_rng(0).random((83, 3))
    ours = metrics.bootstrap_intervals(values, seed=5, resamples=400)
    theirs = stats.bootstrap(
        (values.T,),
        np.mean,
        axis=-1,
        n_resamples=400,
        method="percentile",
        rng=prng.generator(5, "bootstrap"),
    ).confidence_interval
    np.testing.assert_allclose([one.value for one in ours], values.mean(axis=0))
    np.testing.assert_allclose([one.low for one in ours], theirs.low)
    np.testing.assert_allclose([one.high for one in ours], theirs.high)


@pytest.mark.parametrize("elements", [1, 50 * 7])
def test_bootstrap_does_not_depend_on_its_chunks(monkeypatch, elements):
    values = np.random.default_rng(1).random(50)
    whole = metrics.bootstrap_interval(values, seed=1, resamples=99)
    monkeypatch.setattr(resampling_blocks, "_AT_ONCE", elements)
    assert metrics.bootstrap_interval(values, seed=1, resamples=99) == whole
    assert metrics.bootstrap_interval(values, seed=2, resamples=99) != whole


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        interval = metrics.bootstrap_interval(
            (generator.random(100) < 0.3).astype(float), seed=trial, resamples=300
        )
        covered += interval.low <= 0.3 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_lower_level_is_a_narrower_interval():
    values = np.random.default_rng(0).random((50, 2))
    for half, whole in zip(
        metrics.bootstrap_intervals(values, seed=0, level=0.5),
        metrics.bootstrap_intervals(values, seed=0, level=0.95),
        strict=True,
    ):
        assert whole.low < half.low < half.value == whole.value < half.high < whole.high


def test_bootstrap_without_users_or_with_nan_is_an_error():
    for values in (np.array([]), np.array([1.0, np.nan])):
        with pytest.raises(UserError, match="bootstrap"):
            metrics.bootstrap_interval(values, seed=0)


def test_bootstrap_over_seeds_equals_the_enumeration_of_all_draws():
    values = np.random.default_rng(2).random((2, 3, 1))
    every = [
        values[np.ix_(seeds, users)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for users in itertools.product(range(3), repeat=3)
    ]
    (found,) = metrics.bootstrap_intervals_over_seeds(values, seed=0, resamples=40_000, level=0.8)
    assert found.value == pytest.approx(values.mean())
    for end, probability in ((found.low, 0.1), (found.high, 0.9)):
        # The means are few: the end is one of them, and as many draws lie below it as must.
        assert np.abs(np.array(every) - end).min() < 1e-9
        below, up_to = np.mean(np.array(every) < end - 1e-9), np.mean(np.array(every) < end + 1e-9)
        assert below - 0.01 < probability < up_to + 0.01 and up_to - below < 0.1


def test_bootstrap_over_seeds_is_that_over_users_where_seeds_agree_and_wider_where_not():
    one = np.random.default_rng(3).random((40, 2))
    users = metrics.bootstrap_intervals(one, seed=4)
    same = metrics.bootstrap_intervals_over_seeds(np.stack([one] * 3), seed=4)
    apart = metrics.bootstrap_intervals_over_seeds(np.stack([one - 1, one, one + 1]), seed=4)
    for a, b, c in zip(users, same, apart, strict=True):
        assert (b.low, b.high) == pytest.approx((a.low, a.high))
        assert c.low < a.low - 0.5 and c.high > a.high + 0.5


@pytest.mark.parametrize("shape", [(1, 4, 1), (2, 0, 1)])
def test_bootstrap_over_seeds_needs_two_seeds_and_users(shape):
    with pytest.raises(UserError, match="at least two seeds"):
        metrics.bootstrap_intervals_over_seeds(np.zeros(shape), seed=0)


def test_an_interval_has_2000_resamples_and_the_head_is_a_fifth():
    values = np.random.default_rng(1).random(50)
    (same,) = metrics.bootstrap_intervals(values[:, None], seed=1, resamples=2000, level=0.95)
    assert metrics.bootstrap_interval(values, seed=1) == same
    assert np.flatnonzero(metrics.head_items(np.arange(10))).tolist() == [8, 9]


def test_the_first_wrong_row_is_named():
    with pytest.raises(UserError, match=r"row 1 is 0\.5"):
        metrics.metrics_of_ranks(np.array([1, 0.5, 0]))
    with pytest.raises(UserError, match=r"row 1 sums to 1\.4"):
        metrics.expected_metrics(np.array([[0.5, 0.5], [0.7, 0.7], [0.9, 0.9]]))
