import dataclasses
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delrec_jax.data.interactions import Catalogue, Corpus, from_rows
from delrec_jax.data.split_kinds import (
    SplitConfig,
    by_user,
    global_temporal,
    leave_one_out,
    make_split,
)
from delrec_jax.data.splits import padded_histories, partition_users
from delrec_jax.errors import UserError

ROWS = [[4, 0, 2, 1], [3, 1], [0, 1, 2], [], [2, 5, 4, 1, 0]]
# All times in order: 0 5 10 12 20 | 25 26 30 | 33 35, cut at half and at eight tenths.
TIMED = [
    ([0, 1, 2, 3], [0, 10, 20, 30]),
    ([4, 5], [5, 35]),
    ([1, 2, 3], [12, 25, 26]),
    ([6], [33]),
]
DATES = SplitConfig(kind="global_temporal", valid_from=0.5, test_from=0.8)


def make_interactions(rows, times=None):
    times = times or [np.arange(len(row)) for row in rows]
    names = [f"u{k}" for k in range(len(rows))]
    return from_rows(names, [np.array(row, int) for row in rows], times)


def timed_interactions():
    return make_interactions([items for items, _ in TIMED], [np.array(t) for _, t in TIMED])


def corpus_of(interactions, **options):
    names = tuple(map(str, range(10)))
    return Corpus("shop", Catalogue(names, names, {}), interactions, {}, **options)


def lists(arrays):
    return [array.tolist() for array in arrays]


def training_rows(split):
    return lists(split.train.history(user) for user in range(split.train.num_users))


def test_leave_one_out_by_hand():
    split = leave_one_out(make_interactions(ROWS))
    assert split.kind == "leave_one_out"
    assert training_rows(split) == [[4, 0], [3, 1], [0], [], [2, 5, 4]]
    assert split.train.times.tolist() == [0, 1, 0, 1, 0, 0, 1, 2]
    assert split.training_users.tolist() == [0, 1, 2, 4]
    assert split.users("valid").tolist() == split.users("test").tolist() == [0, 2, 4]
    assert split.target("valid").tolist() == [2, 1, 1]
    assert split.target("test").tolist() == [1, 2, 0]
    assert lists(split.histories("valid")) == [[4, 0], [0], [2, 5, 4]]
    assert lists(split.histories("test")) == [[4, 0, 2], [0, 1], [2, 5, 4, 1]]
    assert split.history_lengths("valid").tolist() == [2, 1, 3]
    assert split.history_lengths("test").tolist() == [3, 2, 4]
    assert split.history("valid", 4).tolist() == [2, 5, 4]
    assert split.history("test", 2).tolist() == [0, 1]


def test_global_temporal_by_hand():
    split = global_temporal(timed_interactions(), DATES)
    assert split.kind == "global_temporal"
    assert training_rows(split) == [[0, 1, 2], [4], [1], []]
    assert split.train.times.tolist() == [0, 10, 20, 5, 12]
    assert split.training_users.tolist() == [0, 1, 2]
    # Of u2's items 2 and 3 between the dates the last is asked, and the first is known by then.
    assert split.users("valid").tolist() == [0, 2]
    assert split.target("valid").tolist() == [3, 3]
    assert lists(split.histories("valid")) == [[0, 1, 2], [1, 2]]
    # u3 comes after the second date with nothing before: nothing to rank by.
    assert split.users("test").tolist() == [1]
    assert split.target("test").tolist() == [5]
    assert lists(split.histories("test")) == [[4]]


def test_what_happens_at_a_date_belongs_to_the_period_that_begins():
    rows, ends = [[0, 1], [2, 3], [4, 5], [6, 7]], [2, 2, 3, 3]  # the dates are 2 and 3
    times = [np.array([1, end]) for end in ends]
    split = global_temporal(make_interactions(rows, times), DATES)
    assert training_rows(split) == [[0], [2], [4], [6]]
    assert split.users("valid").tolist() == [0, 1]
    assert split.users("test").tolist() == [2, 3]


def test_by_user_by_hand():
    rows = [[k, k + 1, k + 2, (2 * k) % 10] for k in range(8)] + [[1, 2], [5]]
    config = SplitConfig(kind="by_user", valid_users=0.25, test_users=0.125, seed=3)
    split = by_user(make_interactions(rows), config)
    dealt = partition_users(
        np.arange(8, dtype=np.int32), {"train": 0.625, "valid": 0.25, "test": 0.125}, 3
    )
    assert [len(dealt[name]) for name in ("train", "valid", "test")] == [5, 2, 1]
    for part in ("valid", "test"):
        asked = dealt[part].tolist()
        assert split.users(part).tolist() == asked
        assert split.target(part).tolist() == [rows[user][-1] for user in asked]
        assert lists(split.histories(part)) == [rows[user][:-1] for user in asked]
        assert not np.isin(asked, split.training_users).any()
    held = {*dealt["valid"].tolist(), *dealt["test"].tolist()}
    assert training_rows(split) == [[] if k in held else row for k, row in enumerate(rows)]
    other = by_user(make_interactions(rows), dataclasses.replace(config, seed=4))
    assert other.training_users.tolist() != split.training_users.tolist()


def test_make_split_obeys_the_config():
    corpus = corpus_of(timed_interactions())
    assert make_split(corpus, SplitConfig()).kind == "leave_one_out"
    split = make_split(corpus, DATES)
    assert split.kind == "global_temporal" and split.users("test").tolist() == [1]
    many = corpus_of(make_interactions([[1, 2, 3]] * 10))
    halves = SplitConfig(kind="by_user", valid_users=0.2, test_users=0.5)
    split = make_split(many, halves)
    assert split.kind == "by_user"
    assert [len(split.users(part)) for part in ("valid", "test")] == [2, 5]


def test_positions_are_no_dates():
    corpus = corpus_of(timed_interactions(), ordered_only=True)
    with pytest.raises(UserError, match=r"'shop' are positions .* use leave_one_out or by_user"):
        make_split(corpus, DATES)
    assert make_split(corpus, SplitConfig()).kind == "leave_one_out"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "random"}, r"split.kind is 'random': use one of leave_one_out"),
        (
            {"kind": "global_temporal", "valid_from": 0.9, "test_from": 0.9},
            "valid_from is 0.9 and split.test_from 0.9",
        ),
        ({"kind": "global_temporal", "valid_from": 0.0}, "0 < valid_from < test_from < 1"),
        ({"kind": "global_temporal", "test_from": 1.0}, "0 < valid_from < test_from < 1"),
        ({"kind": "by_user", "valid_users": 0.0}, r"split.valid_users is 0.0"),
        ({"seed": 3}, "split.seed is 3, but split.kind=leave_one_out does not read it"),
        ({"label_users": -1}, "split.label_users is -1: it must be at least 0"),
        (
            {"kind": "by_user", "valid_users": 0.5, "test_users": 0.5},
            "must leave users to train on",
        ),
    ],
)
def test_bad_configs_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        SplitConfig(**options)


def test_dates_that_leave_a_part_empty_are_refused():
    late = SplitConfig(kind="global_temporal", valid_from=0.98, test_from=0.99)
    with pytest.raises(
        UserError, match=r"0 users in validation and 1 in test: .*split\.valid_from"
    ):
        global_temporal(timed_interactions(), late)
    one_time = make_interactions([[0, 1, 2]] * 3, [np.zeros(3, int)] * 3)
    with pytest.raises(UserError, match="0 interactions to train on"):
        global_temporal(one_time, DATES)


def test_few_labels_are_those_of_drawn_users_and_the_tested_users_stay():
    rows = [[user % 7, (user + 1) % 7, (user + 2) % 7, (user + 3) % 7] for user in range(40)]
    corpus = corpus_of(make_interactions(rows))
    everything = make_split(corpus, SplitConfig())
    draws = []
    for seed in (0, 0, 1):
        few = make_split(corpus, SplitConfig(label_users=10, seed=seed))
        draws.append(few.training_users.tolist())
        assert len(few.training_users) == 10
        assert few.users("valid").tolist() == few.training_users.tolist(), "no other label selects"
        for user in few.training_users:
            assert few.train.history(user).tolist() == everything.train.history(user).tolist()
        assert few.users("test").tolist() == everything.users("test").tolist()
        assert lists(few.histories("test")) == lists(everything.histories("test"))
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] != list(range(10)), "not the lowest numbers"
    with pytest.raises(UserError, match=r"split\.label_users is 41, but only 40 users have"):
        make_split(corpus, SplitConfig(label_users=41))


def test_few_labels_do_not_validate_on_the_labels_of_others():
    """Only the first of ten users is there after the first day."""
    rows = [list(range(100)), *[[user, user + 1, user + 2] for user in range(9)]]
    times = [np.arange(100), *[np.zeros(3, int)] * 9]
    corpus = corpus_of(make_interactions(rows, times))
    assert make_split(corpus, DATES).users("valid").tolist() == [0]
    found = set()
    for seed in range(30):
        try:
            found.add(
                tuple(make_split(corpus, replace(DATES, label_users=1, seed=seed)).users("valid"))
            )
        except UserError as error:
            assert "label_users=1: none of the users drawn has a validation target" in str(error)
            found.add("refused")
    assert found == {(0,), "refused"}


def test_with_few_labels_users_apart_still_validate():
    rows = [[user % 7, (user + 1) % 7, (user + 2) % 7, (user + 3) % 7] for user in range(40)]
    corpus, kind = corpus_of(make_interactions(rows)), {"valid_users": 0.2, "test_users": 0.2}
    few = make_split(corpus, SplitConfig("by_user", label_users=5, **kind))
    whole = make_split(corpus, SplitConfig("by_user", **kind))
    assert len(few.training_users) == 5
    assert few.users("valid").tolist() == whole.users("valid").tolist() != []


def test_counts_and_cold_items_look_at_the_training_part_only():
    split = leave_one_out(make_interactions(ROWS))
    assert split.train_counts(7).tolist() == [2, 1, 1, 1, 2, 1, 0]
    only_targets = leave_one_out(make_interactions([[0, 1, 2]]))
    assert only_targets.cold_items(4).tolist() == [False, True, True, True]


def test_history_of_a_user_who_is_not_asked_is_refused():
    split = leave_one_out(make_interactions(ROWS))
    for user in (1, 3, 99):
        with pytest.raises(ValueError, match=f"user {user} is not evaluated in test"):
            split.history("test", user)
    split = global_temporal(timed_interactions(), DATES)
    with pytest.raises(ValueError, match="user 1 is not evaluated in valid"):
        split.history("valid", 1)


@pytest.mark.parametrize("make", [leave_one_out, lambda rows: by_user(rows, SplitConfig())])
def test_nobody_long_enough_is_a_clear_error(make):
    with pytest.raises(UserError, match=r"none of 2 users .* longest history has 2.*k_core"):
        make(make_interactions([[0, 1], [2]]))


def test_too_few_users_to_deal_is_a_clear_error():
    with pytest.raises(UserError, match="3 users leave 'test' empty"):
        by_user(make_interactions([[0, 1, 2]] * 3), SplitConfig(kind="by_user"))


def test_padded_histories_keep_the_latest_items_on_the_right():
    split = leave_one_out(make_interactions(ROWS))
    assert padded_histories(split, "valid", 2).tolist() == [[4, 0], [-1, 0], [5, 4]]
    assert padded_histories(split, "test", 5).tolist() == [
        [-1, -1, 4, 0, 2],
        [-1, -1, -1, 0, 1],
        [-1, 2, 5, 4, 1],
    ]
    some = padded_histories(split, "test", 2, rows=np.array([2, 0]))
    assert some.tolist() == [[4, 1], [0, 2]] and some.dtype == np.int32
    with pytest.raises(ValueError, match="at least 1"):
        padded_histories(split, "test", 0)


def test_warnings_name_parts_with_few_users():
    found = leave_one_out(make_interactions([[0, 1, 2]] * 95)).warnings()
    assert [part in line for part, line in zip(("valid", "test"), found, strict=True)] == [1, 1]
    assert "leave_one_out: test has only 95 users" in found[1] and found[1].endswith("+/- 0.10")
    assert leave_one_out(make_interactions([[0, 1, 2]] * 1000)).warnings() == []


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


def test_splits_start_as_documented():
    assert dataclasses.asdict(SplitConfig()) == {
        **{"kind": "leave_one_out", "valid_from": 0.8, "test_from": 0.9},
        **{"valid_users": 0.1, "test_users": 0.1, "label_users": 0, "seed": 0},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"valid_from": 0.5},
            "split.valid_from is 0.5, but split.kind=leave_one_out does not read",
        ),
        ({"kind": "global_temporal", "valid_from": -0.1}, "0 < valid_from < test_from < 1"),
        ({"kind": "global_temporal", "test_from": 0.7}, "0 < valid_from < test_from < 1"),
        ({"kind": "global_temporal", "test_from": 1.5}, "0 < valid_from < test_from < 1"),
        ({"kind": "by_user", "test_users": -0.1}, "must be above 0"),
        (
            {"kind": "by_user", "valid_users": 0.6, "test_users": 0.6},
            "must leave users to train on",
        ),
    ],
)
def test_shares_and_dates_beyond_their_limits_are_refused(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        SplitConfig(**settings)


def test_limits_of_labels_warnings_and_shares():
    corpus = corpus_of(make_interactions([[1, 2, 3]] * 40))
    assert len(make_split(corpus, SplitConfig(label_users=40)).training_users) == 40
    for users, told in ((999, 2), (1000, 0), (1001, 0)):
        assert len(leave_one_out(make_interactions([[0, 1, 2]] * users)).warnings()) == told
    parts = partition_users(np.arange(5, dtype=np.int32), {"a": 1.0, "b": 0.0}, 0)
    assert [len(part) for part in parts.values()] == [5, 0]


def test_the_last_of_all_times_can_be_the_second_date():
    times = [np.array(pair) for pair in ([0, 3], [1, 4], [2, 5])]
    config = SplitConfig(kind="global_temporal", valid_from=0.5, test_from=0.9)
    split = global_temporal(make_interactions([[0, 1], [2, 3], [4, 5]], times), config)
    assert split.users("valid").tolist() == [0, 1] and split.users("test").tolist() == [2]


def test_items_seen_several_times_are_counted_once_for_each_user():
    split = leave_one_out(make_interactions([[5, 5, 5, 1, 2], [0, 0, 3, 4]]))
    assert split.seen_counts("test").tolist() == [2, 2]
