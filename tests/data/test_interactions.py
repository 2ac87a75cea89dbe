import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delrec_jax.data.interactions import (
    Catalogue,
    Corpus,
    Interactions,
    fingerprint,
    from_rows,
    statistics,
    tied_neighbours,
    untitled,
)


def make_corpus():
    catalogue = Catalogue(
        ids=("a", "b", "c"),
        titles=("Alpha", untitled("b"), "Gamma"),
        attributes={"genre": ("x", "y", "")},
    )
    interactions = from_rows(
        ["u", "v"], [np.array([2, 0, 1]), np.array([1])], [np.array([5, 7, 7]), np.array([-3])]
    )
    return Corpus("tiny", catalogue, interactions, {})


def test_from_rows_compresses_and_history_gives_the_rows_back():
    interactions = make_corpus().interactions
    assert interactions.offsets.tolist() == [0, 3, 4]
    assert interactions.offsets.dtype == np.int64
    assert interactions.items.dtype == np.int32
    assert interactions.times.dtype == np.int64
    assert interactions.history(0).tolist() == [2, 0, 1]
    assert interactions.history(1).tolist() == [1]
    assert interactions.lengths.tolist() == [3, 1]


def test_statistics_by_hand():
    found = statistics(make_corpus())
    assert len(found.pop("fingerprint")) == 64
    assert found == {
        "users": 2,
        "items": 3,
        "interactions": 4,
        "density": 4 / 6,
        "length_mean": 2.0,
        "length_median": 2.0,
        "length_min": 1,
        "length_max": 3,
        "titled": 2 / 3,
        "time_first": -3,
        "time_last": 7,
        "ordered_only": False,
        "tied_neighbours": 1,
    }
    positions = dataclasses.replace(make_corpus(), ordered_only=True)
    assert statistics(positions)["ordered_only"] is True


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=5))
def test_neighbours_at_one_time_are_counted_within_users(times):
    rows = from_rows(
        [str(user) for user in range(len(times))],
        [np.zeros(len(mine), np.int32) for mine in times],
        [np.array(mine, np.int64) for mine in times],
    )
    expected = sum(a == b for mine in times for a, b in itertools.pairwise(mine))
    assert tied_neighbours(rows) == expected


def test_fingerprint_sees_every_part_of_the_content_and_not_the_name():
    corpus = make_corpus()
    original = fingerprint(corpus)
    assert fingerprint(dataclasses.replace(corpus, name="other")) == original
    catalogue, rows = corpus.catalogue, corpus.interactions
    changed_catalogues = [
        dataclasses.replace(catalogue, ids=("a", "b", "d")),
        dataclasses.replace(catalogue, titles=("Alpha", "Beta", "Gamma")),
        dataclasses.replace(catalogue, ids=("ab", "", "c")),
        dataclasses.replace(catalogue, attributes={"genre": ("x", "y", "z")}),
        dataclasses.replace(catalogue, attributes={"class": ("x", "y", "")}),
    ]
    changed_rows = [
        dataclasses.replace(rows, user_ids=("u", "w")),
        dataclasses.replace(rows, user_ids=("uv", "")),
        dataclasses.replace(rows, offsets=np.array([0, 2, 4])),
        dataclasses.replace(rows, items=rows.items[::-1]),
        dataclasses.replace(rows, times=rows.times + 1),
    ]
    prints = [fingerprint(dataclasses.replace(corpus, catalogue=c)) for c in changed_catalogues]
    prints += [fingerprint(dataclasses.replace(corpus, interactions=r)) for r in changed_rows]
    assert len({original, *prints}) == 11


@pytest.mark.parametrize(
    ("ids", "titles", "genres"),
    [
        (("a", "a"), ("A", "B"), ("", "")),
        (("a", "b"), ("A", "A"), ("", "")),
        (("a", "b"), ("A", ""), ("", "")),
        (("a", "b"), ("A", "B"), ("",)),
        (("a", "b"), ("A",), ("", "")),
    ],
)
def test_a_catalogue_is_unambiguous(ids, titles, genres):
    with pytest.raises(ValueError):
        Catalogue(ids, titles, {"genre": genres})


@pytest.mark.parametrize("offsets", [[0, 2], [0, 1, 1], [1, 1, 2], [0, 3, 2]])
def test_offsets_must_cover_the_items(offsets):
    with pytest.raises(ValueError):
        Interactions(("u", "v"), np.array(offsets), np.zeros(2, np.int32), np.zeros(2, np.int64))
