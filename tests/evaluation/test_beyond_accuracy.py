"""Measures beyond accuracy on lists that can be worked out by hand, and the files that they are read from."""

import numpy as np
import polars as pl
import pytest

from delrec_jax.errors import UserError
from delrec_jax.evaluation import beyond_accuracy as beyond
from delrec_jax.evaluation.top_lists import (
    LENGTH,
    items_of,
    lists_table,
    read_lists,
    write_lists,
)

COUNTS = np.array([4, 2, 2, 0])
LISTS = np.array([[0, 1], [0, 2], [1, -1], [-1, -1]])


def padded(lists):
    """Lists of ten items."""
    return np.pad(np.array(lists), ((0, 0), (0, LENGTH - len(lists[0]))), constant_values=-1)


def test_coverage_and_concentration_by_hand():
    assert beyond.coverage(LISTS, 4) == 3 / 4
    # Shown 2, 2, 1 and 0 times: (-3 * 0 - 1 * 1 + 1 * 2 + 3 * 2) / (3 * 5).
    assert beyond.concentration(LISTS, 4) == pytest.approx(7 / 15)
    assert beyond.concentration(np.array([[0, 1], [2, 3]]), 4) == 0
    assert beyond.concentration(np.array([[2], [2], [2]]), 4) == 1


def test_popularity_and_novelty_by_hand():
    np.testing.assert_allclose(beyond.popularity_percentiles(COUNTS), [1, 0.5, 0.5, 0])
    # With one more interaction each, shares of 5, 3, 3 and 1 of 12.
    bits = -np.log2(np.array([5, 3, 3, 1]) / 12)
    np.testing.assert_allclose(beyond.self_information(COUNTS), bits)
    assert beyond.mean_over_users(LISTS, beyond.popularity_percentiles(COUNTS)) == pytest.approx(
        (0.75 + 0.75 + 0.5) / 3
    )


def test_agreement_by_hand():
    others = np.array([[1, 0], [0, 3], [0, 2], [0, 1]])
    # Jaccard 1, 1/3 and 0; the last user has no list to compare. The first items are the same for the second user.
    assert beyond.agreement(LISTS, others) == pytest.approx(((1 + 1 / 3 + 0) / 3, 1 / 3))
    assert beyond.agreement_of_seeds([LISTS, others, LISTS]) == pytest.approx((4 / 9 * 2 + 1) / 3)
    assert beyond.agreement_of_seeds([LISTS]) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: beyond.agreement(LISTS, LISTS[:2]), "4 users of one system, 2 of the other"),
        (lambda: beyond.agreement(LISTS[3:], LISTS[3:]), "no user has lists of both"),
        (lambda: beyond.concentration(LISTS[3:], 4), "all are empty"),
        (lambda: beyond.mean_over_users(LISTS[3:], np.ones(4)), "all are empty"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_rows_compare_each_system_with_the_teacher_of_its_own_run():
    users = np.arange(2)
    runs = {
        ("teacher", "sasrec", 0): [[0, 1], [0, 1]],
        ("delrec", "sasrec", 0): [[0, 1], [2, 3]],
        ("teacher", "sasrec", 1): [[2, 3], [2, 3]],
        ("delrec", "caser", 0): [[0, 1], [0, 1]],
    }
    table = pl.concat(
        [lists_table(*run, users=users, items=padded(lists)) for run, lists in runs.items()]
    )
    first, *rows = beyond.measure_rows(table.reverse(), COUNTS, np.array([0, 3]))
    assert (first["system"], first["popularity"], first["coverage"]) == (beyond.TARGETS, 0.5, None)
    assert first["novelty"] == pytest.approx(beyond.self_information(COUNTS)[[0, 3]].mean())
    found = {(row["system"], row["teacher"], row["seed"]): row for row in rows}
    assert set(found) == set(runs)
    assert [row["jaccard"] for row in (found[key] for key in runs)] == [None, 0.5, None, None]
    delrec = found["delrec", "sasrec", 0]
    assert (delrec["same_first"], delrec["coverage"], delrec["users"]) == (0.5, 1.0, 2)
    assert delrec["concentration"] == 0  # each item once
    assert found["teacher", "sasrec", 0]["concentration"] == pytest.approx(2 / 3)
    assert delrec["novelty"] == pytest.approx(beyond.self_information(COUNTS).mean())


def test_lists_come_back_from_their_files_and_are_not_recorded_without_them(tmp_path):
    assert read_lists(tmp_path) is None and beyond.read_rows(tmp_path) is None
    table = lists_table("teacher", "sasrec", 3, users=np.array([5, 7]), items=padded(LISTS[:2]))
    write_lists(tmp_path, table, interactions=COUNTS)
    found, counts = read_lists(tmp_path)
    assert found.equals(table) and counts.tolist() == COUNTS.tolist()
    assert items_of(found).tolist() == padded(LISTS[:2]).tolist()
    write_lists(tmp_path, table, interactions=COUNTS[:2])
    with pytest.raises(UserError, match=r"top_lists.parquet: column 'items', row 1.*items below 2"):
        read_lists(tmp_path)


@pytest.mark.parametrize(
    ("system", "items", "message"),
    [
        ("somebody", [[0, 1]], "column 'system'"),
        ("teacher", [[1, 1]], "distinct items"),
        ("teacher", [[-1, 1]], "padded with -1 at the end only"),
        ("teacher", [[1, -2]], "padded with -1"),
        ("teacher", [[0, 1], [0, 1]], "column 'user'"),
    ],
)
def test_impossible_lists_are_refused(system, items, message):
    with pytest.raises(UserError, match=message):
        lists_table(system, "", 0, users=np.zeros(len(items), int), items=padded(items))


def test_catalogues_of_one_and_two_items():
    assert beyond.concentration(np.array([[0]]), 1) == 0
    assert beyond.concentration(np.array([[1]]), 2) == 1
    assert beyond.popularity_percentiles(np.array([5])).tolist() == [0]
    assert beyond.popularity_percentiles(np.array([1, 2])).tolist() == [0, 1]
    with pytest.raises(UserError, match="2 users of one system, 4 of the other"):
        beyond.agreement(LISTS[:2], LISTS)


def test_empty_lists_are_not_counted_and_a_system_called_like_the_teacher_is_compared():
    runs = {"teacher": [[0, 1], [2, 3]], "teacher_augmented": [[0, 1], [-1, -1]]}
    table = pl.concat(
        [
            lists_table(name, "sasrec", 1, users=np.arange(2), items=padded(lists))
            for name, lists in runs.items()
        ]
    )
    targets, teacher, other = beyond.measure_rows(table, COUNTS, np.array([0, 3]))
    assert (targets["teacher"], targets["seed"], targets["users"]) == ("", -1, 2)
    assert (teacher["users"], teacher["jaccard"]) == (2, None)
    assert (other["users"], other["jaccard"], other["same_first"]) == (1, 1.0, 1.0)


@pytest.mark.parametrize(("items", "row"), [([1, 1, 2, 3], 0), ([0, 1, 2, 2], 3)])
def test_items_out_of_order_are_refused(tmp_path, items, row):
    table = lists_table("teacher", "", 0, users=np.array([5]), items=padded([[0, 1]]))
    assert table.schema["items"] == pl.Array(pl.Int32, 10)
    write_lists(tmp_path, table, interactions=COUNTS)
    spoilt = pl.DataFrame({"item": items, "interactions": COUNTS})
    spoilt = spoilt.cast({"item": pl.Int32, "interactions": pl.Int64})
    spoilt.write_parquet(tmp_path / "items.parquet")
    with pytest.raises(UserError, match=rf"items\.parquet: column 'item', row {row}:"):
        read_lists(tmp_path)
