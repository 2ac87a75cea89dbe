"""A finished run answers in Python what its evaluation recorded, for every system and any history."""

from dataclasses import replace

import jax
import numpy as np
import polars as pl
import pytest
from tiny_storefront import open_workspace

from delrec_jax.delrec import systems
from delrec_jax.errors import UserError
from delrec_jax.evaluation.top_lists import read_lists
from delrec_jax.serving.recommender import SCHEMA, Recommender
from delrec_jax.workdir.prepared import load_data


@pytest.fixture(scope="module")
def recommender(tiny_run):
    return Recommender(open_workspace(tiny_run))


@pytest.fixture(scope="module")
def data(tiny_run):
    return load_data(open_workspace(tiny_run))


@pytest.fixture(scope="module")
def histories(data):
    return data.split.histories("test")


def test_every_system_recommends_what_its_evaluation_recorded(
    recommender, tiny_run, histories, monkeypatch
):
    monkeypatch.setattr("delrec_jax.serving.recommender.BATCH", 16)  # three batches
    lists, _ = read_lists(open_workspace(tiny_run).folder("evaluate"))
    recorded = {
        name[0]: table.sort("user")["items"].to_numpy() for name, table in lists.group_by("system")
    }
    asked = set(recommender.systems)
    assert {"delrec", "teacher", "ease", "lm_tuned_no_prompt", "hybrid(delrec+teacher)"} <= asked
    assert set(recorded) - asked == {"oracle"}
    for name in recommender.systems:
        found = recommender.ranked(histories, k=10, system=name)
        np.testing.assert_array_equal(np.stack([items for items, _ in found]), recorded[name], name)
        assert all((np.diff(scores) <= 0).all() for _, scores in found)


def test_one_history_of_titles_or_ids(recommender, data, histories):
    catalogue, history = data.corpus.catalogue, histories[3]
    named = [f" {catalogue.titles[item].upper()}" for item in history]
    table = recommender.recommend(named, k=4)
    (items, scores), *_ = recommender.ranked([history], k=4)
    assert table.columns == [name for name in SCHEMA if name != "history"]
    assert table["title"].to_list() == [catalogue.titles[item] for item in items]
    assert table["rank"].to_list() == [1, 2, 3, 4]
    np.testing.assert_array_equal(table["score"], scores)
    by_id = recommender.recommend([catalogue.ids[item] for item in history], k=4, by="id")
    assert by_id.equals(table)
    assert not set(table["item"]) & {catalogue.ids[item] for item in history}


def test_candidates_are_ordered_as_the_catalogue_is(recommender, data, histories):
    titles, some = data.corpus.catalogue.titles, histories[:3]
    named = [[titles[item] for item in history] for history in some]
    candidates = [[titles[item] for item in (5, 2, 9, *history[:1])] for history in some]
    for system in ("teacher", "delrec"):
        found = recommender.rank(named, candidates, system=system)
        everything = recommender.ranked(some, [np.arange(len(titles))] * 3, system=system)
        for row, (items, _) in enumerate(everything):
            mine = found.filter(pl.col("history") == row)["title"].to_list()
            assert mine == [titles[item] for item in items if titles[item] in candidates[row]]
    assert recommender.rank(named, candidates, k=2).group_by("history").len()["len"].to_list() == [
        2,
        2,
        2,
    ]


def test_title_vectors_of_the_model_and_of_the_tuned_one(tiny_run, data, monkeypatch):
    recommender, load = Recommender(open_workspace(tiny_run)), systems.language_system

    def moved(ws, language, name, guides):  # the tiny run's own adapters have hardly moved
        found = load(ws, language, name, guides)
        assert name == "delrec"
        return replace(found, adapters=jax.tree.map(lambda leaf: leaf + 0.1, found.adapters))

    monkeypatch.setattr(systems, "language_system", moved)
    plain, tuned = recommender.embed_items(), recommender.embed_items(tuned=True)
    assert plain.shape == tuned.shape and len(plain) == data.num_items
    assert np.isfinite(plain).all() and not np.allclose(plain, tuned)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda r, t: r.recommend(t[:1], system="eese"), "no system 'eese' .*: ask cease, ease, "),
        (lambda r, t: r.recommend([t[0] + "x"]), "history: no item is called .*the nearest are: "),
        (lambda r, t: r.rank([t[:1], []]), "history 1 is empty: give at least one title"),
        (lambda r, t: r.rank([t[0]]), "history: .* is one text; give a list of titles"),
        (lambda r, t: r.recommend(["7x"], by="id"), "no item has the id '7x'"),
        (lambda r, t: r.recommend(t[:1], k=len(t)), "use 1 to 35"),
        (
            lambda r, t: r.rank([t[:1]], [t[:2]], k=0),
            "-k 0: a list has a whole number of items, at least 1",
        ),
        (lambda r, t: r.rank([t[:1]], [t[:2], t[:2]]), "candidates has 2 lists for 1 histories"),
        (lambda r, t: r.rank([t[:1]], [[t[3], t[3]]]), "candidates 0 names an item twice"),
        (lambda r, t: r.recommend(t[:1], k=2.5), "-k 2.5: a list has a whole number"),
        (lambda r, t: r.recommend({*t[:2]}), "history: a set has no order; give a list of titles"),
        (lambda r, t: r.recommend(t[:1], by="ID"), "by is 'ID': use one of title, id"),
        (lambda r, t: r.rank_items([[1], [36]], k=2), "history 1 has an item that is not in the"),
        (lambda r, t: r.rank_items([[1]], [[-1, 2]]), "candidates 0 has an item .* 0 to 35"),
        (lambda r, t: r.rank_items([[1], []], k=2), "history 1 is empty: give at least one item"),
        (lambda r, t: r.rank_items([[1]], [[]]), "candidates 0 is empty: give at least one item"),
        (lambda r, t: r.rank_items([[1], [2]], [[3]]), "candidates has 1 lists for 2 histories"),
        *(
            (
                lambda r, t, rows=rows: r.rank_items(rows),
                "history 0 is .*: give a list of the numbers",
            )
            for rows in ([[1.7]], [[0.5, 1]], [[True, False]], [["a"]], [3], [[[1, 2]]])
        ),
        (lambda r, t: r.rank(None), "histories is 'None': give a list of lists of items"),
        (lambda r, t: r.rank_items(5), "histories is '5': give a list of lists of numbers"),
        (lambda r, t: r.recommend(5), "history: 5 is no list; give a list of titles"),
        (lambda r, t: r.rank([t[:1]], 7), "candidates is '7': give a list"),
    ],
)
def test_what_cannot_be_asked_is_one_clear_line(recommender, ask, message):
    with pytest.raises(UserError, match=message):
        ask(recommender, list(recommender.titles))


def test_what_is_given_one_after_the_other_is_a_list(recommender):
    titles = list(recommender.titles)[:2]
    found = recommender.recommend(titles, k=2, system="ease")
    assert recommender.recommend((t for t in titles), k=2, system="ease").equals(found)
    several = recommender.rank((one for one in [titles, titles]), k=2, system="ease")
    assert several["item"].to_list() == found["item"].to_list() * 2
    numbers = np.array([[0, 1]])
    assert recommender.rank_items(numbers, k=2, system="ease")["item"].equals(found["item"])


def test_nothing_asked_is_an_empty_table(recommender):
    found = recommender.rank([])
    assert found.is_empty() and dict(found.schema) == SCHEMA
