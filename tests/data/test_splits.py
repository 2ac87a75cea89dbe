import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delrec_jax.data.interactions import from_rows
from delrec_jax.data.splits import leave_one_out, padded_histories, partition_users
from delrec_jax.errors import UserError

ROWS = [[4, 0, 2, 1], [3, 1], [0, 1, 2], [], [2, 5, 4, 1, 0]]


def make_interactions(rows):
    times = [np.arange(len(row)) for row in rows]
    names = [f"u{k}" for k in range(len(rows))]
    return from_rows(names, [np.array(row, int) for row in rows], times)


def test_leave_one_out_by_hand():
    split = leave_one_out(make_interactions(ROWS))
    assert split.users.tolist() == [0, 2, 4]
    assert split.valid_target.tolist() == [2, 1, 1]
    assert split.test_target.tolist() == [1, 2, 0]
    assert split.short_users == 2
    assert [split.train.history(u).tolist() for u in range(5)] == [
        [4, 0], [3, 1], [0], [], [2, 5, 4],
    ]  # fmt: skip
    assert split.train.times.tolist() == [0, 1, 0, 1, 0, 0, 1, 2]
    assert split.history("valid", 4).tolist() == [2, 5, 4]
    assert split.history("test", 4).tolist() == [2, 5, 4, 1]
    assert split.target("valid").tolist() == [2, 1, 1]
    assert split.target("test").tolist() == [1, 2, 0]


def test_counts_and_cold_items_look_at_the_training_part_only():
    split = leave_one_out(make_interactions(ROWS))
    assert split.train_counts(7).tolist() == [2, 1, 1, 1, 2, 1, 0]
    only_targets = leave_one_out(make_interactions([[0, 1, 2]]))
    assert only_targets.cold_items(4).tolist() == [False, True, True, True]


def test_history_of_a_user_who_is_not_evaluated_is_refused():
    split = leave_one_out(make_interactions(ROWS))
    for user in (1, 3, 99):
        with pytest.raises(ValueError, match="not evaluated"):
            split.history("test", user)


def test_nobody_long_enough_is_a_clear_error():
    with pytest.raises(UserError, match=r"none of 2 users .* longest history has 2.*k_core"):
        leave_one_out(make_interactions([[0, 1], [2]]))


def test_padded_histories_keep_the_latest_items_on_the_right():
    split = leave_one_out(make_interactions(ROWS))
    assert padded_histories(split, "valid", 2).tolist() == [[4, 0], [-1, 0], [5, 4]]
    assert padded_histories(split, "test", 5).tolist() == [
        [-1, -1, 4, 0, 2],
        [-1, -1, -1, 0, 1],
        [-1, 2, 5, 4, 1],
    ]
    with pytest.raises(ValueError, match="at least 1"):
        padded_histories(split, "test", 0)


@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=8), min_size=1, max_size=8))
def test_training_part_and_targets_put_together_are_the_rows(rows):
    rows = [*rows, [7, 8, 9]]
    split = leave_one_out(make_interactions(rows))
    for user, row in enumerate(rows):
        place = np.flatnonzero(split.users == user)
        if len(row) < 3:
            assert not len(place)
            assert split.train.history(user).tolist() == row
            continue
        test_history = split.history("test", user).tolist()
        assert [*test_history, split.test_target[place[0]]] == row
        assert [*split.history("valid", user).tolist(), split.valid_target[place[0]]] == row[:-1]


@given(st.lists(st.integers(0, 500), unique=True, min_size=10, max_size=60), st.integers(0, 2**31))
def test_partition_is_disjoint_covering_and_repeatable(users, seed):
    fractions = {"train": 0.7, "valid": 0.1, "heldout": 0.2}
    parts = partition_users(np.array(users, np.int32), fractions, seed)
    assert list(parts) == list(fractions)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == sorted(users)
    for name, share in fractions.items():
        assert abs(len(parts[name]) - share * len(users)) <= 1
        assert parts[name].tolist() == sorted(parts[name].tolist())
    again = partition_users(np.array(users, np.int32), fractions, seed)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)


def test_partition_depends_on_the_seed_and_rejects_bad_shares():
    users = np.arange(100, dtype=np.int32)
    halves = {"a": 0.5, "b": 0.5}
    first, second = partition_users(users, halves, 0), partition_users(users, halves, 1)
    assert not np.array_equal(first["a"], second["a"])
    with pytest.raises(UserError, match=r"sum to 0\.9"):
        partition_users(users, {"a": 0.5, "b": 0.4}, 0)
    with pytest.raises(UserError, match="at least 0"):
        partition_users(users, {"a": 1.5, "b": -0.5}, 0)
    with pytest.raises(UserError, match="leave 'b' empty"):
        partition_users(users[:3], {"a": 0.9, "b": 0.1}, 0)
