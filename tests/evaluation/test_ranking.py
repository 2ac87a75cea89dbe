import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.errors import UserError
from delrec_jax.evaluation import ranking, user_ranks


def brute_rank(scores, target, left_out=()):
    """Mean of the places the target takes over all orders of its tie group."""
    rivals = [s for i, s in enumerate(scores) if i != target and i not in left_out]
    first = 1 + sum(s > scores[target] for s in rivals)
    ties = sum(s == scores[target] for s in rivals)
    return np.mean(np.arange(first, first + ties + 1)), ties


def test_hand_worked_full_ranks():
    scores = jnp.array([[3.0, 1.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0], [1.0, 9.0, 8.0, 7.0]])
    rank, ties = ranking.rank_full(scores, jnp.array([2, 0, 0]))
    assert rank.tolist() == [2.5, 2.5, 4.0]
    assert ties.tolist() == [1, 3, 0]


def test_seen_items_leave_the_ranking_but_the_target_never_does():
    scores = jnp.array([[3.0, 1.0, 2.0, 2.0]] * 2)
    seen = jnp.array([[True, False, True, True], [False, False, False, False]])
    rank, ties = ranking.rank_full(scores, jnp.array([2, 2]), seen)
    assert rank.tolist() == [1.0, 2.5]
    assert ties.tolist() == [0, 1]


def test_minus_infinity_ties_at_the_bottom_but_not_with_seen_items():
    low = -jnp.inf
    scores = jnp.array([[3.0, low, low, low]])
    seen = jnp.array([[False, False, False, True]])
    rank, ties = ranking.rank_full(scores, jnp.array([1]), seen)
    assert (rank.item(), ties.item()) == (2.5, 1)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_full_rank_equals_brute_force(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, (5, 7)).astype(np.float32)
    targets = generator.integers(0, 7, 5)
    seen = generator.random((5, 7)) < 0.4
    rank, ties = ranking.rank_full(jnp.asarray(scores), jnp.asarray(targets), jnp.asarray(seen))
    for row in range(5):
        expected = brute_rank(scores[row], targets[row], np.flatnonzero(seen[row]))
        assert (rank[row].item(), ties[row].item()) == expected


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_candidate_ranking_is_full_ranking_when_the_set_is_the_catalogue(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, (4, 6)).astype(np.float32)
    targets = generator.integers(0, 6, 4)
    candidates = np.stack([generator.permutation(6) for _ in range(4)])
    among = ranking.rank_candidates(
        ranking.gather_candidates(scores, candidates), candidates, targets
    )
    full = ranking.rank_full(jnp.asarray(scores), jnp.asarray(targets))
    np.testing.assert_array_equal(among[0], full[0])
    np.testing.assert_array_equal(among[1], full[1])


def test_a_target_outside_the_candidates_is_a_miss_and_padding_is_not_ranked():
    scores = jnp.array([[1.0, 2.0, 3.0], [1.0, 9.0, 9.0]])
    candidates = jnp.array([[4, 5, 6], [7, -1, -1]])
    rank, ties = ranking.rank_candidates(scores, candidates, jnp.array([3, 7]))
    assert rank.tolist() == [np.inf, 1.0]
    assert ties.tolist() == [0, 0]


def test_a_padding_target_never_matches_padding():
    rank, _ = ranking.rank_candidates(jnp.ones((1, 2)), jnp.array([[3, -1]]), jnp.array([-1]))
    assert rank.tolist() == [np.inf]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_ranking_without_a_history_equals_brute_force(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, (5, 7)).astype(np.float32)
    targets = generator.integers(0, 7, 5)
    histories = generator.integers(-1, 7, (5, 6))  # padding anywhere, repeats, sometimes the target
    for given_histories in (histories, lambda rows: histories[rows]):
        ranker = user_ranks.full_ranker(targets, given_histories)
        rank, ties = ranker(jnp.asarray(scores), np.arange(5))
        for row in range(5):
            expected = brute_rank(scores[row], targets[row], set(histories[row].tolist()) - {-1})
            assert (rank[row].item(), ties[row].item()) == expected


def test_ranks_come_back_by_row_whatever_the_order_of_scoring():
    generator = np.random.default_rng(0)
    scores, targets = generator.normal(size=(7, 9)).astype(np.float32), generator.integers(0, 9, 7)
    asked = []

    def score(rows):
        asked.append(rows.tolist())
        return scores[rows]

    call = {"num_users": 7, "batch_size": 3}
    plain = user_ranks.rank_users(score, {"full": user_ranks.full_ranker(targets)}, **call)["full"]
    order = np.array([6, 0, 5, 1, 4, 2, 3])
    rankers = {"full": user_ranks.full_ranker(targets)}
    found = user_ranks.rank_users(score, rankers, order=order, **call)["full"]
    assert asked[3][:3] == [6, 0, 5]
    np.testing.assert_array_equal(found.rank, plain.rank)
    np.testing.assert_array_equal(found.ties, plain.ties)
    assert len(set(plain.rank.tolist())) > 2


def test_seen_items_of_histories_ignore_padding():
    seen = ranking.seen_items(jnp.array([[-1, -1, 2], [0, 3, 0]]), num_items=4)
    assert seen.tolist() == [[False, False, True, False], [True, False, False, True]]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_scores_are_refused_with_the_row(bad, kind):
    scores = np.zeros((3, 4), kind)
    scores[1, 2] = bad
    ranker = {"full": user_ranks.full_ranker(np.zeros(3, int))}
    with pytest.raises(UserError, match=r"teacher, full.*1 of 3 users.*row 1"):
        user_ranks.rank_users(
            lambda u: scores[u], ranker, num_users=3, batch_size=2, what="teacher"
        )
    few = {"few": user_ranks.candidate_ranker(np.zeros(3, int), np.tile(np.arange(4), (3, 1)))}
    with pytest.raises(UserError, match="teacher, few"):
        user_ranks.rank_users(lambda u: scores[u], few, num_users=3, batch_size=2, what="teacher")


def test_padding_among_the_candidates_is_last():
    found = ranking.gather_candidates(jnp.array([[1.0, 2.0]]), jnp.array([[1, -1]]))
    assert found.tolist() == [[2.0, -np.inf]]


def test_a_target_outside_the_catalogue_is_refused():
    for target in (-1, 4):
        ranker = {"full": user_ranks.full_ranker(np.full(2, target))}
        with pytest.raises(UserError, match="outside the catalogue"):
            user_ranks.rank_users(
                lambda u: np.zeros((len(u), 4)), ranker, num_users=2, batch_size=2
            )


SCORES, ROWS, PAIRS = np.zeros((3, 4)), np.zeros(3, int), np.zeros((3, 2), int)


@pytest.mark.parametrize(
    ("rank", "arguments"),
    [  # all of them would broadcast into something
        (ranking.rank_full, (SCORES, ROWS[:1])),
        (ranking.rank_full, (SCORES, ROWS[:, None])),
        (ranking.rank_full, (SCORES, ROWS, np.zeros(4, bool))),
        (ranking.rank_unseen, (SCORES, ROWS, PAIRS[:1])),
        (ranking.rank_candidates, (SCORES, PAIRS[:, :1], ROWS)),
        (ranking.rank_candidates, (SCORES[:, :2], PAIRS, ROWS[:1])),
        (ranking.gather_candidates, (SCORES, PAIRS[:1])),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(rank, arguments):
    with pytest.raises(AssertionError, match="expected"):
        rank(*arguments)


def test_no_users_is_an_error():
    with pytest.raises(UserError, match="0 users"):
        user_ranks.rank_users(lambda u: np.zeros((len(u), 4)), {}, num_users=0, batch_size=2)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 16])
def test_the_driver_drops_filling_and_gives_every_batch_size_the_same_ranks(batch_size):
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 5, (7, 9)).astype(np.float32)
    targets = generator.integers(0, 9, 7)
    histories = np.array([[-1, (t + 1) % 9, (t + 2) % 9] for t in targets])
    candidates = np.stack([generator.permutation(9)[:4] for _ in range(7)])
    rankers = {
        "full": user_ranks.full_ranker(targets, histories),
        "some": user_ranks.candidate_ranker(targets, candidates, full_scores=True),
    }
    ranks = user_ranks.rank_users(
        lambda users: scores[users], rankers, num_users=7, batch_size=batch_size
    )
    for user in range(7):
        expected, ties = brute_rank(scores[user], targets[user], histories[user])
        assert (ranks["full"].rank[user], ranks["full"].ties[user]) == (expected, ties)
        if targets[user] in candidates[user]:
            left_out = set(range(9)) - set(candidates[user])
            assert ranks["some"].rank[user] == brute_rank(scores[user], targets[user], left_out)[0]
        else:
            assert np.isinf(ranks["some"].rank[user])
    assert ranks["full"].rank.dtype == np.float64
    assert len(ranks["full"].rank) == len(ranks["some"].ties) == 7


def test_one_shape_compiles_and_each_user_is_scored_once_for_all_protocols():
    calls = []

    @jax.jit
    @chex.assert_max_traces(1)
    def model(users):
        return users[:, None] * jnp.arange(6.0)

    def score(users):
        calls.append(users.copy())
        return model(users)

    targets = np.arange(5)
    rankers = {name: user_ranks.full_ranker(targets) for name in ("a", "b")}
    user_ranks.rank_users(score, rankers, num_users=5, batch_size=2)
    assert [call.tolist() for call in calls] == [[0, 1], [2, 3], [4, 4]]


def test_close_float64_scores_do_not_become_ties():
    scores = np.array([[1.0, 1.0 + 1e-12, 0.5]])
    ranks = user_ranks.rank_users(
        lambda u: scores[u],
        {"full": user_ranks.full_ranker(np.array([0]))},
        num_users=1,
        batch_size=1,
    )["full"]
    assert (ranks.rank[0], ranks.ties[0]) == (2.0, 0)


def test_the_first_of_several_broken_rows_is_named_and_a_broken_miss_is_no_miss():
    scores = np.zeros((4, 2), np.float32)
    scores[1:3] = np.nan
    with pytest.raises(UserError, match=r"2 of 4 users.*first at row 1"):
        user_ranks.rank_users(
            lambda u: scores[u],
            {"full": user_ranks.full_ranker(np.zeros(4, int))},
            num_users=4,
            batch_size=2,
            what="teacher",
        )
    rank, ties = ranking.rank_candidates(scores[:2], np.array([[0, 1]] * 2), np.array([5, 5]))
    assert rank[0] == np.inf and np.isnan(rank[1]) and ties.tolist() == [0, 0]
