"""What a reader must be told of a corpus: by hand on small ones."""

from dataclasses import replace

import numpy as np
import pytest

from delrec_jax.data.corpora.tables import NO_TITLE_ROW, REPEATED
from delrec_jax.data.corpus_warnings import corpus_warnings, repeated_targets, tied_targets
from delrec_jax.data.interactions import Catalogue, Corpus, from_rows, untitled
from delrec_jax.data.split_kinds import leave_one_out


def corpus_of(times, titled=10, **options):
    ids = tuple(map(str, range(10)))
    titles = tuple(name if place < titled else untitled(name) for place, name in enumerate(ids))
    rows = [np.array([user % 7, (user + 1) % 7, (user + 2) % 7]) for user in range(len(times))]
    names = [f"u{user:04}" for user in range(len(times))]
    interactions = from_rows(names, rows, [np.array(one) for one in times])
    return Corpus("shop", Catalogue(ids, titles, {}), interactions, {}, **options)


def told(corpus):
    return corpus_warnings(corpus, leave_one_out(corpus.interactions))


def test_tied_targets_are_those_with_the_time_of_the_item_before():
    times = [[1, 2, 2], [2, 2, 3], [5, 5, 5], [2, 3, 4]]  # where one ends, the next may begin
    split = leave_one_out(corpus_of(times).interactions)
    assert tied_targets(split) == pytest.approx(2 / 4)


def test_targets_that_repeat_are_told():
    rows = [np.array([1, 2, 1]), np.array([1, 2, 3]), np.array([4, 4, 4])]
    times = [np.arange(3)] * 3
    split = leave_one_out(from_rows(["a", "b", "c"], rows, times))
    assert repeated_targets(split) == 2
    found = corpus_warnings(corpus_of([[1, 2, 3]] * 3), split)
    assert found[0].startswith("2 test users have had their target before (data.repeats=keep)")


@pytest.mark.parametrize(("tied", "warned"), [(49, False), (50, True)])
def test_tied_targets_are_told_from_a_twentieth_on(tied, warned):
    times = [[1, 2, 2]] * tied + [[1, 2, 3]] * (1000 - tied)
    found = told(corpus_of(times))
    assert found == (
        [
            "5 % of the test users have their target at the same time as the item before it: which of the two came last is "
            "decided by data.time_ties"
        ]
        if warned
        else []
    )
    assert told(corpus_of(times, ordered_only=True)) == found


@pytest.mark.parametrize(("titled", "warned"), [(9, False), (8, True)])
def test_items_without_titles_are_told(titled, warned):
    found = told(corpus_of([[1, 2, 3]] * 1000, titled))
    assert [line.startswith("only 80 % of the items have a title") for line in found] == [
        True
    ] * warned


def test_few_users_are_told_too():
    assert len(told(corpus_of([[1, 2, 2]] * 4))) == 3


@pytest.mark.parametrize(
    ("reason", "lost", "words"),
    [
        (NO_TITLE_ROW, 333, None),
        (NO_TITLE_ROW, 334, "check that both files write item ids alike"),
        (REPEATED, 1285, None),
        (REPEATED, 1286, "see data.repeats"),
        ("interactions: user shorter than data.min_length", 9999, None),
    ],
)
def test_rows_that_are_lost_in_great_numbers_are_told(reason, lost, words):
    corpus = replace(corpus_of([[1, 2, 3]] * 1000), dropped={reason: lost})  # 3000 rows are kept
    found = told(corpus)
    if words is None:
        assert found == []
    else:
        assert len(found) == 1 and words in found[0]
        assert found[0].startswith(f"{lost} rows are left out beside 3000 that are kept ({reason})")
