"""What must hold of every split of any corpus: it leaks nothing and loses nothing."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from delrec_jax.data import split_kinds
from delrec_jax.data.interactions import Catalogue, Corpus, from_rows
from delrec_jax.data.split_kinds import KINDS, SplitConfig, by_user, global_temporal, leave_one_out
from delrec_jax.data.splits import PARTS, padded_histories
from delrec_jax.errors import UserError

ITEMS = 9
# Few items and few times: repeated items, ties in time and dates on ties are frequent.
events = st.tuples(st.integers(0, 40), st.integers(0, ITEMS - 1))
rows_of_events = st.lists(st.lists(events, max_size=7), min_size=4, max_size=9)
shares = st.tuples(st.floats(0.2, 0.6), st.floats(0.05, 0.35))


def make(kind, rows, numbers, seed):
    """The split, and everybody's (time, item) in time order."""
    assume(any(rows))
    first, step = numbers
    settings = {
        "leave_one_out": {},
        "global_temporal": {"valid_from": first, "test_from": first + step},
        "by_user": {"valid_users": first / 1.5, "test_users": step, "seed": seed},
        "given": {},
    }
    config = SplitConfig(kind=kind, **settings[kind])
    rows = [sorted(row, key=lambda event: event[0]) for row in rows]
    interactions = from_rows(
        [f"u{k}" for k in range(len(rows))],
        [np.array([item for _, item in row], int) for row in rows],
        [np.array([time for time, _ in row], int) for row in rows],
    )
    makers = {
        "leave_one_out": lambda: leave_one_out(interactions),
        "by_user": lambda: by_user(interactions, config),
        "global_temporal": lambda: global_temporal(interactions, config),
        "given": lambda: split_kinds.given(in_parts(interactions, seed)),
    }
    try:
        return makers[kind](), rows
    except UserError:
        assume(False)


def in_parts(interactions, seed):
    """A corpus whose source has assigned each user to a part."""
    names = tuple(map(str, range(ITEMS)))
    parts = np.random.default_rng(seed).choice(["train", "valid", "test"], interactions.num_users)
    return Corpus(
        "shop", Catalogue(names, names, {}), interactions, {}, parts=tuple(parts.tolist())
    )


def training_rows(split):
    """Everybody's training (time, item)."""
    train = split.train
    spans = [slice(*train.offsets[user : user + 2]) for user in range(train.num_users)]
    return [
        list(zip(train.times[span].tolist(), train.items[span].tolist(), strict=True))
        for span in spans
    ]


def asked(split, part, rows):
    """(user, the events before the target, the target's event), by counting places from the user's first."""
    found = []
    for user, place in zip(split.users(part), split.parts[part].places, strict=True):
        row, at = rows[user], int(place - split.interactions.offsets[user])
        assert 0 <= at < len(row)
        found.append((int(user), row[:at], row[at]))
    return found


every_kind = pytest.mark.parametrize("kind", KINDS)
draws = given(rows_of_events, shares, st.integers(0, 99))
many = settings(max_examples=40)


@every_kind
@many
@draws
def test_what_trains_is_a_first_stretch_before_every_target_of_its_user(kind, rows, numbers, seed):
    split, rows = make(kind, rows, numbers, seed)
    trained = training_rows(split)
    for user, row in enumerate(rows):
        assert trained[user] == row[: len(trained[user])]
    for part in PARTS:
        for user, before, target in asked(split, part, rows):
            assert len(trained[user]) <= len(before)
            assert all(time <= target[0] for time, _ in trained[user])


@every_kind
@many
@draws
def test_a_target_comes_with_exactly_what_precedes_it(kind, rows, numbers, seed):
    split, rows = make(kind, rows, numbers, seed)
    for part in PARTS:
        found = asked(split, part, rows)
        given_items = [[item for _, item in before] for _, before, _ in found]
        assert [history.tolist() for history in split.histories(part)] == given_items
        assert [split.history(part, user).tolist() for user, _, _ in found] == given_items
        assert split.history_lengths(part).tolist() == [len(items) for items in given_items]
        assert split.target(part).tolist() == [item for _, _, (_, item) in found]
        assert all(given_items)


@every_kind
@many
@draws
def test_users_are_ascending_and_asked_once_in_each_part(kind, rows, numbers, seed):
    split, _ = make(kind, rows, numbers, seed)
    for part in PARTS:
        assert len(split.users(part))
        assert np.all(np.diff(split.users(part)) > 0)
        assert split.users(part).dtype == np.int32
    together = np.concatenate([split.parts[part].places for part in PARTS])
    assert len(set(together.tolist())) == len(together)  # no item is asked in both parts


@every_kind
@many
@draws
def test_nothing_is_lost(kind, rows, numbers, seed):
    split, rows = make(kind, rows, numbers, seed)
    trained = training_rows(split)
    targets = {
        part: {user: target for user, _, target in asked(split, part, rows)} for part in PARTS
    }
    for user, row in enumerate(rows):
        if kind == "leave_one_out" and len(row) >= 3:
            assert [*trained[user], targets["valid"][user], targets["test"][user]] == row
        elif kind == "by_user":
            owners = [part for part in PARTS if user in targets[part]]
            assert trained[user] == ([] if owners else row) and len(owners) <= 1
            assert all(targets[part][user] == row[-1] for part in owners)
        elif kind == "leave_one_out":
            assert trained[user] == row
            assert not any(user in targets[part] for part in PARTS)


@many
@draws
def test_by_user_keeps_a_users_rows_in_one_part(rows, numbers, seed):
    split, rows = make("by_user", rows, numbers, seed)
    valid, test = (set(split.users(part).tolist()) for part in PARTS)
    assert not valid & test
    assert not (valid | test) & set(split.training_users.tolist())
    assert all(len(rows[user]) >= 3 for user in valid | test)
    long = sum(len(row) >= 3 for row in rows)
    first, step = numbers
    assert abs(len(valid) - first / 1.5 * long) <= 1 and abs(len(test) - step * long) <= 1


@many
@draws
def test_global_temporal_separates_the_periods(rows, numbers, seed):
    split, rows = make("global_temporal", rows, numbers, seed)
    trained = [time for row in training_rows(split) for time, _ in row]
    valid, test = ([target[0] for _, _, target in asked(split, part, rows)] for part in PARTS)
    assert max(trained) < min(valid) <= max(valid) < min(test)


@many
@draws
def test_global_temporal_is_a_loop_over_users(rows, numbers, seed):
    split, rows = make("global_temporal", rows, numbers, seed)
    times = sorted(time for row in rows for time, _ in row)
    first, second = (
        times[int(share * len(times))] for share in (numbers[0], numbers[0] + numbers[1])
    )
    assert training_rows(split) == [[event for event in row if event[0] < first] for row in rows]
    expected = {"valid": [], "test": []}
    for user, row in enumerate(rows):
        for part, inside in (
            ("valid", [at for at, (time, _) in enumerate(row) if first <= time < second]),
            ("test", [at for at, (time, _) in enumerate(row) if second <= time]),
        ):
            if inside and inside[-1] > 0:
                expected[part].append((user, row[: inside[-1]], row[inside[-1]]))
    for part in PARTS:
        assert asked(split, part, rows) == expected[part]


@every_kind
@many
@given(rows_of_events, shares, st.integers(0, 99), st.integers(1, 9), st.data())
def test_padded_histories_are_a_loop_over_users(kind, rows, numbers, seed, length, data):
    split, _ = make(kind, rows, numbers, seed)
    for part in PARTS:
        naive = []
        for history in split.histories(part):
            latest = history[-length:].tolist()
            naive.append([-1] * (length - len(latest)) + latest)
        padded = padded_histories(split, part, length)
        assert padded.tolist() == naive and padded.dtype == np.int32
        chosen = data.draw(st.lists(st.integers(0, len(naive) - 1), max_size=4))
        some = padded_histories(split, part, length, rows=np.array(chosen, np.int64))
        assert some.tolist() == [naive[row] for row in chosen]


@every_kind
@many
@draws
def test_counts_and_cold_items_are_those_of_the_training_rows(kind, rows, numbers, seed):
    split, _ = make(kind, rows, numbers, seed)
    bought = [item for row in training_rows(split) for _, item in row]
    assert split.train_counts(ITEMS + 1).tolist() == [bought.count(i) for i in range(ITEMS + 1)]
    assert split.cold_items(ITEMS + 1).tolist() == [i not in bought for i in range(ITEMS + 1)]
