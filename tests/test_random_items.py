import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from delrec_jax.errors import UserError
from delrec_jax.random_items import (
    distinct_items,
    other_items,
    row_keys,
    stream_keys,
    stream_place,
    taken_codes,
)

WORD = (1 << 64) - 1


def splitmix(key, counter):
    """SplitMix64's output by Python's integers (Steele et al. 2014; state = key + counter * step)."""
    mixed = (key + counter * 0x9E3779B97F4A7C15) & WORD
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & WORD
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & WORD
    return mixed ^ mixed >> 31


def one_by_one(key, count, num_items, excluded):
    """`distinct_items` of one row as a loop over the stream."""
    left = num_items - len(excluded)
    if left < max(4 * count, num_items // 2):
        free = [item for item in range(num_items) if item not in excluded]
        return sorted(free, key=lambda item: splitmix(key, item + 1) >> 1)[:count]
    found, counter = [], 0
    while len(found) < count:
        counter += 1
        item = splitmix(key, counter) % num_items
        if item not in excluded and item not in found:
            found.append(item)
    return found


def codes(excluded, num_items):
    rows = [row * num_items + np.array(sorted(one), np.int64) for row, one in enumerate(excluded)]
    return np.concatenate([np.zeros(0, np.int64), *rows])


def test_the_numbers_are_those_of_splitmix64():
    # The first outputs of the reference implementation (Vigna, splitmix64.c) for seed 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix(1234567, counter) for counter in (1, 2, 3)] == published


def test_keys_are_hashes_of_stream_and_name():
    expected = [hashlib.blake2b(f"s/1/{name}".encode(), digest_size=8) for name in ("", "ä", "b")]
    keys = stream_keys("s/1", ["", "ä", "b"])
    assert keys.dtype == np.uint64
    assert keys.tolist() == [int.from_bytes(one.digest(), "little") for one in expected]
    assert len({*keys.tolist(), *stream_keys("s/2", ["", "ä", "b"]).tolist()}) == 6
    assert stream_keys("s", []).tolist() == []


def test_row_keys_are_outputs_of_the_stream_that_starts_at_the_hash():
    start = int.from_bytes(hashlib.blake2b(b"s/1/", digest_size=8).digest(), "little")
    assert row_keys("s/1", np.array([0, 3, 7])).tolist() == [splitmix(start, n) for n in (0, 3, 7)]


@settings(max_examples=150)
@given(st.data())
def test_items_and_places_are_a_loop_over_the_stream(data):
    num_items = data.draw(st.integers(4, 60), label="items")
    count = data.draw(st.integers(1, num_items - 1), label="count")
    met = st.sets(st.integers(0, num_items - 1), max_size=num_items - count)
    excluded = data.draw(st.lists(met, max_size=5), label="excluded")
    names = data.draw(st.lists(st.text(), min_size=len(excluded), max_size=len(excluded)))
    keys = stream_keys("any", names)
    drawn = distinct_items(keys, count, num_items=num_items, excluded=codes(excluded, num_items))
    assert drawn.dtype == np.int32 and drawn.shape == (len(excluded), count)
    for row, key in enumerate(keys.tolist()):
        assert drawn[row].tolist() == one_by_one(key, count, num_items, excluded[row])
    assert stream_place(keys, count).tolist() == [splitmix(k, 0) % count for k in keys.tolist()]


def test_a_large_catalogue_in_which_the_first_draws_are_met():
    """Rows go on drawing until they have enough, each at its own pace."""
    num_items, count = 100_000, 5
    keys = stream_keys("any", [f"u{k}" for k in range(4)])
    first = [[splitmix(key, n) % num_items for n in range(1, 41)] for key in keys.tolist()]
    excluded = [set(), set(first[1][:7]), set(first[2][:30]), set(first[3][1:39:2])]
    drawn = distinct_items(keys, count, num_items=num_items, excluded=codes(excluded, num_items))
    for row, key in enumerate(keys.tolist()):
        assert drawn[row].tolist() == one_by_one(key, count, num_items, excluded[row])
    assert drawn[1].tolist() == first[1][7:12]


# Of 10 items one is met: 9 are left, enough to draw freely for 2 and too few for 3.
@pytest.mark.parametrize(("count", "outcomes"), [(2, 9 * 8), (3, 9 * 8 * 7)])
def test_every_ordered_choice_is_equally_likely(count, outcomes):
    rows = 200 * outcomes
    keys = stream_keys("chi", [f"u{k}" for k in range(rows)])
    excluded = np.arange(rows) * 10 + 4
    drawn = distinct_items(keys, count, num_items=10, excluded=excluded)
    seen = np.unique(drawn @ 10 ** np.arange(count), return_counts=True)[1]
    assert len(seen) == outcomes
    assert stats.chisquare(seen).pvalue > 1e-3
    places = np.bincount(stream_place(keys, 7), minlength=7)
    assert stats.chisquare(places).pvalue > 1e-3


def test_neighbours_items_and_places_are_independent():
    rows, num_items = 40_000, 12
    keys = stream_keys("chi", [f"u{k}" for k in range(rows)])
    none = np.zeros(0, np.int64)
    drawn = distinct_items(keys, 3, num_items=num_items, excluded=none)
    other = distinct_items(
        stream_keys("other", [f"u{k}" for k in range(rows)]), 3, num_items=num_items, excluded=none
    )
    place = stream_place(keys, 4)
    pairs = {
        "neighbours": (drawn[:-1, 0], drawn[1:, 0]),
        "streams": (drawn[:, 0], other[:, 0]),
        "place and item": (place, drawn[:, 0]),
        "place and last item": (place, drawn[:, 2]),
    }
    for name, (left, right) in pairs.items():
        table = np.zeros((num_items, num_items), int)
        np.add.at(table, (left, right), 1)
        table = table[table.sum(1) > 0]
        assert stats.chi2_contingency(table).pvalue > 1e-3, name


@settings(max_examples=100)
@given(st.data())
def test_other_items_are_the_draw_from_the_complement(data):
    """The exact draw that reading the whole catalogue would give, and codes of the same taken items."""
    known = np.array(sorted(data.draw(st.sets(st.integers(0, 60), min_size=2))))
    taken = np.array(data.draw(st.lists(st.integers(-1, 60), min_size=1, max_size=80)))
    seed, pool = data.draw(st.integers(0, 99)), np.setdiff1d(known, taken)
    count = data.draw(st.integers(0, len(pool)))
    drawn = other_items(known, taken, count, np.random.default_rng(seed), remedy="")
    expected = np.random.default_rng(seed).choice(pool, count, replace=False) if count else []
    assert drawn.tolist() == list(expected)
    with pytest.raises(UserError, match=rf"but {len(pool)} of {len(known)} are left: lower m"):
        other_items(known, taken, len(pool) + 1, np.random.default_rng(seed), remedy="lower m")
    codes = taken_codes(known, np.stack([taken, taken[::-1]]))
    places = np.flatnonzero(np.isin(known, taken))
    assert codes.tolist() == [*places, *(len(known) + places)]


def test_other_items_of_a_large_catalogue():
    """Where NumPy draws by another method; the taken items are at both ends and in runs."""
    known = np.arange(5, 200_000)
    taken = np.concatenate([np.arange(0, 900), np.arange(199_000, 200_001), [70_000, 70_001]])
    drawn = other_items(known, taken, 500, np.random.default_rng(1), remedy="")
    pool = np.setdiff1d(known, taken)
    np.testing.assert_array_equal(drawn, np.random.default_rng(1).choice(pool, 500, replace=False))
