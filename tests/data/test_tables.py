import dataclasses
import time

import numpy as np
import polars as pl
import pytest
from corpus_files import nonzero, taken
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.data.corpora import tables
from delrec_jax.data.corpora.raw import RawTables
from delrec_jax.data.corpora.tables import RulesConfig, make_corpus
from delrec_jax.data.corpora.times import times_are_positions, whole_seconds
from delrec_jax.data.corpora.titles import (
    LONGEST_TITLE,
    clean_title,
    cut_long_titles,
    distinct_titles,
    fill_empty_titles,
)
from delrec_jax.errors import UserError

ALL = RulesConfig(min_length=0)


def raw(rows, *, items="abcdef", ratings=None, dropped=None):
    """Rows are "user item time" in one string each; items are one letter each."""
    cells = [row.split() for row in rows]
    columns = {
        "user": pl.Series([cell[0] for cell in cells], dtype=pl.String),
        "item": pl.Series([cell[1] for cell in cells], dtype=pl.String),
        "time": pl.Series([int(cell[2]) for cell in cells], dtype=pl.Int64),
    }
    if ratings:
        columns["rating"] = pl.Series(ratings, dtype=pl.Float64)
    catalogue = pl.DataFrame({"item": list(items), "title": [f"Item {i}" for i in items]})
    return RawTables("shop", pl.DataFrame(columns), catalogue, dropped or {})


def sequences(corpus):
    """Raw user id to raw item ids in order, as one string."""
    return {user: "".join(items) for user, items in taken(corpus).items()}


def test_a_small_table_by_hand():
    rows = ["v c 5", "u b 9", "v a 4", "u a 1", "v b 5"]
    corpus = make_corpus(raw(rows, items="abcd", dropped={"lines: odd": 3}), ALL)
    assert list(sequences(corpus).items()) == [("v", "acb"), ("u", "ab")]
    assert corpus.interactions.times.tolist() == [4, 5, 5, 1, 9]
    assert corpus.interactions.offsets.tolist() == [0, 3, 5]
    assert corpus.interactions.items.dtype == np.int32
    assert (corpus.interactions.times.dtype, corpus.interactions.offsets.dtype) == (np.int64,) * 2
    assert corpus.catalogue.ids == ("a", "b", "c")
    assert nonzero(corpus) == {"lines: odd": 3, tables.UNUSED_ITEM: 1}
    assert not corpus.ordered_only


def test_each_rule_counts_what_it_leaves_out():
    rows = ["u a 1", "u b 2", "u z 3", "u a 4", "u c 5", "v a 1", "v b 2", "w c 1"]
    rows += ["w d 2", "x a 1", "x b 2", "x c 3"]
    ratings = [5, 5, 5, 5, 5, 5, 5, 5, 1, 5, 5, 5]
    rules = RulesConfig(min_rating=2, k_core=2, min_length=2, max_users=2, seed=3)
    corpus = make_corpus(raw(rows, items="abcd", ratings=ratings), rules)
    dropped = dict(nonzero(corpus))
    # w keeps one row and goes; the core then is all of u, v and x; the sample takes two of them.
    beyond = dropped.pop(tables.BEYOND_MAX_USERS)
    assert beyond == 8 - len(corpus.interactions.items)
    assert corpus.interactions.num_users == 2
    assert dropped == {
        tables.LOW_RATING: 1,
        tables.NO_TITLE_ROW: 1,
        tables.REPEATED: 1,
        tables.SHORT_USER: 1,
        tables.UNUSED_ITEM: 1,
    }


def test_a_rating_equal_to_the_least_is_kept_and_a_missing_one_is_not():
    table = raw(["u a 1", "u b 2", "u c 3"], ratings=[3.0, 2.5, None])
    corpus = make_corpus(table, RulesConfig(min_rating=3, min_length=1))
    assert sequences(corpus) == {"u": "a"}
    assert corpus.dropped[tables.LOW_RATING] == 2


def test_min_rating_needs_ratings():
    with pytest.raises(UserError, match=r"data\.min_rating = 3: corpus shop has no ratings"):
        make_corpus(raw(["u a 1"]), RulesConfig(min_rating=3))


def brute_force_core(pairs, k, min_length):
    pairs = set(pairs)
    users = {u for u, _ in pairs}
    pairs = {(u, i) for u, i in pairs if sum(v == u for v, _ in pairs) >= min_length}
    while users:
        bad = {
            (u, i)
            for u, i in pairs
            if sum(v == u for v, _ in pairs) < max(k, min_length)
            or sum(j == i for _, j in pairs) < k
        }
        if not bad:
            return pairs
        pairs -= bad
    return pairs


@settings(max_examples=60)
@given(
    st.sets(st.tuples(st.integers(0, 5), st.sampled_from("abcdef")), min_size=4, max_size=30),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_k_core_is_iterated_to_its_end(pairs, k, min_length):
    table = raw([f"u{u} {i} {n}" for n, (u, i) in enumerate(sorted(pairs))])
    rules = RulesConfig(k_core=k, min_length=min_length)
    expected = brute_force_core(pairs, k, min_length)
    if not expected:
        with pytest.raises(UserError, match=f"shop: no interaction is left of {len(pairs)}"):
            make_corpus(table, rules)
        return
    corpus = make_corpus(table, rules)
    found = {(u, i) for u, row in sequences(corpus).items() for i in row}
    assert found == {(f"u{u}", i) for u, i in expected}
    lost = corpus.dropped[tables.SHORT_USER] + corpus.dropped[tables.OUTSIDE_CORE]
    assert lost == len(pairs) - len(expected)


def test_users_that_the_core_leaves_shorter_than_min_length_go_too():
    # Items c and d are taken once; without them u0 and u1 have two items each.
    rows = {"u0": "abc", "u1": "abd", "u2": "abe", "u3": "abe"}
    table = raw([f"{user} {item} {ord(item)}" for user, row in rows.items() for item in row])
    corpus = make_corpus(table, RulesConfig(k_core=2, min_length=3))
    assert sequences(corpus) == {"u2": "abe", "u3": "abe"}


def test_max_users_is_a_seeded_sample_of_whole_users():
    table = raw([f"u{u} {item} {n}" for u in range(20) for n, item in enumerate("abcd")])
    samples = [
        make_corpus(table, RulesConfig(max_users=5, seed=seed)).interactions for seed in (0, 0, 1)
    ]
    assert [s.num_users for s in samples] == [5, 5, 5]
    assert all(s.lengths.tolist() == [4] * 5 for s in samples)
    assert samples[0].user_ids == samples[1].user_ids != samples[2].user_ids
    assert make_corpus(table, RulesConfig(max_users=20)).dropped[tables.BEYOND_MAX_USERS] == 0
    corpus = make_corpus(table, RulesConfig(max_users=5))
    assert corpus.dropped[tables.BEYOND_MAX_USERS] == 15 * 4


def test_an_empty_table_leaves_nothing():
    with pytest.raises(UserError, match="no interaction is left of 0"):
        make_corpus(raw([]), RulesConfig(k_core=2, max_users=1, time_ties="item"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_core": -1}, r"data\.k_core = -1"),
        ({"min_rating": -0.5}, r"data\.min_rating = -0.5"),
        ({"repeats": "none"}, r"data\.repeats = 'none': is none of first, last, keep"),
        ({"time_ties": "random"}, r"data\.time_ties = 'random': is none of file, item"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        RulesConfig(**change)


def test_titles_and_attributes_of_the_items_that_are_used():
    items = pl.DataFrame(
        {
            "item": ["a", "b", "c", "d", "e"],
            "title": ["Fish &amp; Chips", "Fish & Chips", None, "x" * 2000, "Fish & Chips"],
            "year": ["2001 ", "2004", "", None, "1990"],
            "brand": [" Sea", "", None, "y", "z"],
        }
    )
    table = dataclasses.replace(raw(["u a 1", "u b 2", "u c 3", "u d 4"]), items=items)
    corpus = make_corpus(table, ALL)
    assert corpus.catalogue.titles == (
        "Fish & Chips (2001)",
        "Fish & Chips (2004)",
        "untitled item c",
        "x" * LONGEST_TITLE,
    )
    years, brands = ("2001", "2004", "", ""), ("Sea", "", "", "y")
    assert corpus.catalogue.attributes == {"year": years, "brand": brands}
    assert nonzero(corpus) == {
        tables.UNUSED_ITEM: 1,
        tables.EMPTY_TITLE: 1,
        tables.LONG_TITLE: 1,
        tables.REPEATED_TITLE: 2,
    }


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-1, 5), st.sampled_from("abcxy")), min_size=1
    ),
    st.sampled_from(["first", "last", "keep"]),
    st.sampled_from(["file", "item"]),
)
def test_order_and_repeats_as_plain_python_has_them(rows, repeats, ties):
    table = raw([f"u{user} {item} {time}" for user, time, item in rows], items="bca")
    known = [row for row in rows if row[2] in "abc"]
    if not known:
        return
    corpus = make_corpus(table, dataclasses.replace(ALL, repeats=repeats, time_ties=ties))
    expected = {}
    for name in dict.fromkeys(user for user, _, _ in rows):
        mine = [(time, item) for user, time, item in known if user == name]
        mine.sort(key=(lambda row: row[0]) if ties == "file" else None)
        order = mine[::-1] if repeats == "last" else mine
        unique = {item: None for _, item in order}
        kept = [item for _, item in mine] if repeats == "keep" else list(unique)
        if mine:
            expected[f"u{name}"] = "".join(kept[::-1] if repeats == "last" else kept)
    assert list(sequences(corpus).items()) == list(expected.items())
    assert corpus.dropped[tables.REPEATED] == len(known) - len("".join(expected.values()))


@given(st.dictionaries(st.integers(0, 4), st.lists(st.integers(-1, 4), min_size=1, max_size=5)))
def test_times_that_are_positions(times):
    rows = [(user, time) for user, mine in enumerate(times.values()) for time in mine]
    user, time = (np.array([row[n] for row in rows], np.int64) for n in (0, 1))
    expected = bool(times) and all(
        sorted({*mine}) in (list(range(len({*mine}))), list(range(1, len({*mine}) + 1)))
        for mine in times.values()
    )
    shuffled = np.random.default_rng(0).permutation(len(rows))
    assert times_are_positions(user[shuffled].astype(np.int32), time[shuffled]) is expected


def test_positions_are_told_before_any_rule():
    rows = ["u a 2", "u b 0", "u z 1", "v a 1", "v b 2", "v c 3"]
    corpus = make_corpus(raw(rows), ALL)
    assert corpus.ordered_only
    assert corpus.interactions.times.tolist() == [0, 2, 1, 2, 3]
    assert not make_corpus(raw([*rows, "w a 7"]), ALL).ordered_only


@given(st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 4000)), max_size=12))
def test_whole_seconds_keep_the_order_of_fractions_and_every_other_place(rows):
    table = pl.DataFrame(
        {"user": [u for u, _ in rows], "time": [t for _, t in rows], "row": range(len(rows))},
        schema={"user": pl.String, "time": pl.Int64, "row": pl.Int64},
    )
    found = whole_seconds(table, per_second=1000)
    assert found["time"].dtype == pl.Int64
    by_user = {}
    for user, second, row in found.rows():
        assert second == rows[row][1] // 1000
        by_user.setdefault((user, second), []).append((rows[row][1], row))
    assert all(group == sorted(group) for group in by_user.values())
    assert list(zip(found["user"], found["time"], strict=True)) == [(u, t // 1000) for u, t in rows]
    fractions = table.with_columns(pl.col("time") / 1000)
    assert whole_seconds(fractions).equals(found)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Matrix, The", "The Matrix"),
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("American Werewolf in London, An", "An American Werewolf in London"),
        ("Kid in King Arthur's Court, A", "A Kid in King Arthur's Court"),
        ("Lion, The Witch and the Wardrobe", "Lion, The Witch and the Wardrobe"),
        ("Good, The Bad and The Ugly, The", "The Good, The Bad and The Ugly"),
        ("Postino, Il", "Il Postino"),
        ("Uomo solo, L' (1990)", "L'Uomo solo (1990)"),
        (
            "Green Angel, The (Gruene Engel, Der) (1930)",
            "The Green Angel (Der Gruene Engel) (1930)",
        ),
        ("Rue seule, La (Lonely Street, The)", "La Rue seule (The Lonely Street)"),
        ("Postman (a.k.a. Postino, Il)", "Postman (a.k.a. Il Postino)"),
        ("Maybe, Maybe Not (Mann, Der)", "Maybe, Maybe Not (Der Mann)"),
        ("Eat, Sleep, Die", "Eat, Sleep, Die"),
        ("Me, Myself, I", "Me, Myself, I"),
        ("Hole punch (1, A)", "Hole punch (1, A)"),
        ("Sports Bra (Nude, A)", "Sports Bra (Nude, A)"),
        ("Vitamin D, E, A", "Vitamin D, E, A"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("Hello, Los Angeles", "Hello, Los Angeles"),
        ("One (Two, The) Three, A", "A One (Two, The) Three"),
        ("(Odd, The", "The (Odd"),
        ("  two \t words\u00a0here ", "two words here"),
        ("Q&amp;amp;A &#39;x&#39;", "Q&A 'x'"),
        (", The", ", The"),
        (" ", ""),
        ("\u200b \ufeff\u00ad", ""),  # nothing that can be seen, and no token
        ("&#8203;\u0301", ""),
        ("\u200bA", "\u200bA"),
    ],
)
def test_clean_title(written, expected):
    assert clean_title(written) == expected


@pytest.mark.parametrize("part", [", The (", " (a)", "amp;", ", The"])
def test_a_hostile_title_is_cleaned_in_no_time(part):
    title = "&x, y" + part * 200_000 + " x"
    start = time.process_time()
    clean_title(title)
    # It takes milliseconds; time that grew with the square of the length would be minutes.
    assert time.process_time() - start < 60


def test_long_titles_are_cut_and_counted():
    titles = ["a" * LONGEST_TITLE, "b" * (LONGEST_TITLE + 1), "c " * LONGEST_TITLE]
    cut, count = cut_long_titles(titles)
    assert [len(title) for title in cut] == [LONGEST_TITLE, LONGEST_TITLE, LONGEST_TITLE - 1]
    assert count == 2


def test_titles_are_told_apart_by_year_where_that_is_enough():
    titles = ["A", "A", "B", "B", "C", "C", "C", "D"]
    years = ["1990", "1991", "1990", "1990", "1990", "1990", "2000", "1999"]
    found, changed = distinct_titles(titles, list("stuvwxyz"), years)
    expected = ["A (1990)", "A (1991)", "B (u)", "B (v)", "C (w)", "C (x)", "C (2000)", "D"]
    assert found == expected
    assert changed == 7


@given(st.lists(st.sampled_from(["A", "A (1)", "A (2)", "A (1) (1)", "", "B"]), max_size=8))
def test_titles_end_up_unique_and_filled(titles):
    ids = [str(k) for k in range(len(titles))]
    filled, empty = fill_empty_titles(titles, ids)
    assert empty == titles.count("")
    found, changed = distinct_titles(filled, ids, ["1"] * len(ids))
    assert len(set(found)) == len(found)
    assert all(found)
    assert changed == sum(a != b for a, b in zip(filled, found, strict=True))
    for before, after in zip(filled, found, strict=True):
        assert after == before or filled.count(before) > 1 or before.startswith("A")
