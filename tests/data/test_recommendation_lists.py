"""Another system's lists from CSV and parquet: what is read, and that every mistake names its row and the remedy."""

import jax
import numpy as np
import polars as pl
import pytest

from delrec_jax.data.interactions import Catalogue, Corpus, from_rows
from delrec_jax.data.recommendation_lists import read_recommendation_lists
from delrec_jax.errors import UserError
from delrec_jax.teachers import listed
from delrec_jax.teachers.listed import ListedTeacher, _below
from delrec_jax.teachers.lists import ListSettings, RowsOf

ITEMS = ("a", "b,1", "c", "d", "e")
SEQUENCES = {"7": [0, 1, 2], "08": [3, 0]}  # ids are texts: "08" is not 8
CORPUS = Corpus(
    name="tiny",
    catalogue=Catalogue(ITEMS, tuple("ABCDE"), {}),
    interactions=from_rows(
        tuple(SEQUENCES),
        [np.array(items, np.int32) for items in SEQUENCES.values()],
        [np.arange(len(items)) for items in SEQUENCES.values()],
    ),
    dropped={},
)
GOOD = [
    ("08", 1, "a", -0.5),
    ("7", 2, "e", 1.5),
    ("7", 2, "b,1", 9.0),  # in the history: it is kept
    ("7", 1, "d", 0.25),
    ("7", 2, "d", 1.5),  # ties with e, and comes first by its number
    ("08", 1, "e", 0.1),
]


def written(path, rows, columns=("user_id", "length", "item_id", "score")):
    table = pl.DataFrame(rows, columns, orient="row").with_columns(note=pl.lit("ignored"))
    table.write_parquet(path) if path.suffix == ".parquet" else table.write_csv(path)
    return path


def replaced(row, **cells):
    names = ("user_id", "length", "item_id", "score")
    changed = tuple(cells.get(name, value) for name, value in zip(names, GOOD[row], strict=True))
    return [*GOOD[:row], changed, *GOOD[row + 1 :]]


@pytest.mark.parametrize("name", ["lists.csv", "lists.parquet"])
def test_lists_are_sorted_by_history_and_score(tmp_path, name):
    found = read_recommendation_lists(written(tmp_path / name, GOOD), CORPUS)
    assert [*zip(found.users, found.lengths, strict=True)] == [(0, 1), (0, 2), (1, 1)]
    assert found.offsets.tolist() == [0, 1, 4, 6]
    assert found.items.tolist() == [3, 1, 3, 4, 4, 0]
    np.testing.assert_array_equal(found.scores, np.float32([0.25, 9.0, 1.5, 1.5, 0.1, -0.5]))
    assert {found.users.dtype, found.lengths.dtype, found.items.dtype} == {np.dtype(np.int32)}


BAD = [
    (replaced(3, user_id="8"), "row 4, column 'user_id': '8' is no user of the prepared corpus"),
    (replaced(0, item_id="z"), "row 1, column 'item_id': 'z' is no item of the prepared corpus"),
    (replaced(3, length=4), "row 4, column 'length': '4' is no length of a history of user_id '7'"),
    (
        replaced(5, length=0),
        "who has 2 items in the prepared corpus: give a whole number from 1 to 2",
    ),
    (replaced(1, score=float("nan")), "row 2, column 'score': 'NaN' is not a finite number"),
    (replaced(1, score=float("inf")), "row 2, column 'score': 'inf' is not a finite number"),
    (replaced(1, score=1e300), "row 2, column 'score': '1e+300' is too large for float32"),
    (replaced(2, score=None), "row 3, column 'score': empty cell"),
    (
        [*GOOD, GOOD[1]],
        "row 7, column 'item_id': 'e' is in the list of user_id '7', length 2, already",
    ),
    ([(u, length + 0.5, i, s) for u, length, i, s in GOOD], "row 1, column 'length': '1.5' is no"),
    (GOOD[:0], "no rows"),
]


@pytest.mark.parametrize(("rows", "message"), BAD)
def test_a_mistake_is_named(tmp_path, rows, message):
    path = written(tmp_path / "lists.parquet", rows)
    with pytest.raises(UserError) as refused:
        read_recommendation_lists(path, CORPUS)
    assert str(refused.value).startswith(str(path)) and message in str(refused.value)


def test_files_that_hold_no_lists_are_refused(tmp_path):
    bad = {
        "gone.csv": (None, "no such file"),
        "gone.parquet": (None, "cannot be read as parquet"),
        "text.parquet": ("user_id,length\n", "cannot be read as parquet"),
        "lists.json": ("{}", "FILE.csv or FILE.parquet"),
        "cut.csv": ("user_id,length,item_id\n7,1,a\n", "no column 'score'"),
        "late.csv": (
            "user_id,length,item_id,score\n7,1,d,1\n7,one,a,1\n",
            "line 3, column 'length'",
        ),
    }
    for name, (text, message) in bad.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            read_recommendation_lists(tmp_path / name, CORPUS)


def teacher(tmp_path, rows=GOOD):
    found = read_recommendation_lists(written(tmp_path / "lists.csv", rows), CORPUS)
    return ListedTeacher(**vars(found), user_ids=tuple(SEQUENCES), source="lists.csv")


def test_too_few_that_can_be_recommended_are_refused_and_named(tmp_path):
    lists, everything = teacher(tmp_path), np.ones(5, bool)
    asked = {"users": np.array([1, 0]), "lengths": np.array([1, 2])}
    rest = {"key": "candidates.rerank", "seen": np.array([[3, -1], [0, 1]])}
    assert lists.top_lists(**asked, top_h=2, allowed=everything, **rest).tolist() == [
        [4, 0],
        [3, 4],
    ]
    known = np.array([True, True, True, False, True])
    with pytest.raises(UserError) as refused:
        lists.top_lists(**asked, top_h=2, allowed=known, **rest)
    assert "lists.csv: the list of user_id '7', length 2 has 3 items, of which 1 can" in str(
        refused.value
    )
    assert "but candidates.rerank asks for 2" in str(refused.value)
    with pytest.raises(
        UserError, match=r"1 of 2 histories .* the first is user_id '08', length 2: add"
    ):
        lists.places(np.array([0, 1]), np.array([2, 2]))


def test_scores_and_negatives_of_a_list(tmp_path):
    lists = teacher(tmp_path)
    scores = lists.catalogue_scores(np.array([1, 0]), np.array([1, 1]), 5)
    below = -0.5 - 0.6  # one mean step; a list of one item has none
    np.testing.assert_allclose(scores[0], [-0.5, below, below, below, 0.1], rtol=1e-6)
    np.testing.assert_allclose(scores[1], [-0.75, -0.75, -0.75, 0.25, -0.75], rtol=1e-6)
    large = np.full((2, 3), 1e9, np.float32)
    assert (_below(large, np.array([3, 1])) < large[:, 0]).all()
    made = lists.distillation_lists(
        np.array([1]),
        np.array([1]),
        settings=ListSettings(top_h=1, num_candidates=4),
        allowed=np.ones(5, bool),
        seen=np.array([[3]]),
    )
    assert made.items[0, 0] == 4 and sorted(made.items[0]) == [0, 1, 2, 4]
    known = np.float32([-0.5, -np.inf, -np.inf, -np.inf, 0.1])
    np.testing.assert_array_equal(made.scores[0], known[made.items[0]])


def test_catalogue_scores_are_those_of_a_loop_over_the_lists():
    rng, items = np.random.default_rng(2), 30
    counts = rng.integers(1, 20, 12)
    listed = [rng.permutation(items)[:count] for count in counts]
    scored = [np.sort(rng.normal(size=count).astype(np.float32))[::-1] for count in counts]
    scored[3][:] = 0.5
    lists = ListedTeacher(
        users=np.arange(12, dtype=np.int32),
        lengths=np.full(12, 4, np.int32),
        offsets=np.append(0, np.cumsum(counts)),
        items=np.concatenate(listed).astype(np.int32),
        scores=np.concatenate(scored),
        user_ids=tuple("abcdefghijkl"),
        source="lists.csv",
    )
    asked = np.array([11, 3, 0, 3, 7])
    found = lists.catalogue_scores(asked, np.full(5, 4), items)
    assert isinstance(found, jax.Array)  # no array of the catalogue's width is made on the host
    for row, user in zip(np.asarray(found), asked, strict=True):
        high, low = float(scored[user][0]), float(scored[user][-1])
        expected = np.full(items, low - ((high - low) / max(counts[user] - 1, 1) or 1), np.float32)
        expected[listed[user]] = scored[user]
        np.testing.assert_array_equal(row, expected)


def test_seen_items_that_are_made_by_row_close_the_same_items(tmp_path, monkeypatch):
    monkeypatch.setattr(listed, "_BLOCK", 1)
    lists, seen = teacher(tmp_path), np.array([[3, -1], [0, 1]])
    asked = []

    def make(rows):
        asked.append(len(rows))
        return np.pad(seen[rows], ((0, 0), (1, 0)), constant_values=-1)

    question = {"users": np.array([1, 0]), "lengths": np.array([1, 2]), "allowed": np.ones(5, bool)}
    settings = ListSettings(top_h=1, num_candidates=3)
    for ask in (
        lambda seen: lists.top_lists(**question, top_h=2, key="", seen=seen),
        lambda seen: lists.distillation_lists(**question, settings=settings, seen=seen).items,
    ):
        np.testing.assert_array_equal(ask(RowsOf(2, make)), ask(seen))
    assert set(asked) == {1}
