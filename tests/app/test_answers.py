"""What the page computes: lists as the recommender gives them, what changed since the last answer, and what is refused."""

import math

import numpy as np
import pytest
from tiny_storefront import open_workspace

from delrec_jax.app import answers as answering
from delrec_jax.app import render
from delrec_jax.app.answers import MOST_ITEMS, Answers, Asked, Refused
from delrec_jax.app.page import FAILED, answered
from delrec_jax.app.searching import SHOWN, Search
from delrec_jax.errors import UserError
from delrec_jax.serving.recommender import Recommender

HISTORY = (3, 9, 14)


@pytest.fixture(scope="module")
def recommender(tiny_run):
    return Recommender(open_workspace(tiny_run))


@pytest.fixture(scope="module")
def answers(recommender):
    return Answers(recommender, "SASRec")


def test_lists_are_those_of_the_recommender(answers, recommender):
    answer = answers.ask(HISTORY, ["delrec", "teacher"], 5, None)
    assert [listing.label for listing in answer.listings] == ["Teacher (SASRec)", "DELRec"]
    for name, listing in zip(("teacher", "delrec"), answer.listings, strict=True):
        ((items, scores),) = recommender.ranked([np.array(HISTORY)], k=5, system=name)
        assert answer.asked.lists[name] == tuple(items)
        assert [entry.title for entry in listing.entries] == [answers.titles[i] for i in items]
        assert [entry.score for entry in listing.entries] == scores.tolist()
        assert [entry.rank for entry in listing.entries] == [1, 2, 3, 4, 5]
        assert not listing.compared and not listing.left and listing.seconds > 0
    assert answer.asked.history == tuple(answers.titles[item] for item in HISTORY)


def test_the_first_choice_is_teacher_language_model_delrec_and_hybrid(answers):
    chosen = [answers.labels[name] for name in answers.chosen]
    assert chosen[0] == "Teacher (SASRec)" and chosen[1].startswith("LM, ")
    assert chosen[2:] == ["LM + distilled prompt", "DELRec", "DELRec + Teacher"]


def test_ranks_are_compared_with_the_last_list_of_the_same_system(answers):
    now = answers.ask(HISTORY, ["teacher", "ease"], 4, None).asked.lists["teacher"]
    first, second, _, fourth = now
    gone = next(item for item in range(len(answers.titles)) if item not in (*now, *HISTORY))
    before = Asked(("other",), {"teacher": (second, first, gone, fourth)})
    ease, teacher = sorted(
        answers.ask(HISTORY, ["teacher", "ease"], 4, before).listings,
        key=lambda listing: listing.label,
    )
    assert [entry.change for entry in teacher.entries] == [1, -1, None, 0]
    assert teacher.left == ((answers.titles[gone], 3),)
    assert teacher.compared and not ease.compared and not ease.left
    assert {entry.change for entry in ease.entries} == {None}


def test_the_order_of_the_history_matters_to_the_teacher(answers):
    lists = [answers.ask(h, ["teacher"], 9, None).asked.lists for h in (HISTORY, HISTORY[::-1])]
    assert lists[0] != lists[1]


def test_only_the_first_time_includes_loading(recommender):
    answers = Answers(recommender, "SASRec")
    first = [answers.ask(HISTORY, ["ease"], 3, None).listings[0].first for _ in range(2)]
    assert first == [True, False]


def test_texts_are_what_the_language_systems_read(answers):
    systems = ["teacher", "lm_no_prompt", "lm_distilled_prompt", "delrec", "hybrid(delrec+teacher)"]
    plain, slotted = answers.ask(HISTORY, systems, 3, None).texts
    assert plain.labels == (answers.labels["lm_no_prompt"],) and "[P0]" not in plain.text
    assert slotted.labels == ("LM + distilled prompt", "DELRec")
    assert "[P0] [P1] [P2]" in slotted.text and "[P3]" not in slotted.text
    assert slotted.tokens > plain.tokens
    newest = "; ".join(answers.titles[item] for item in HISTORY[-2:])  # prompts.max_history=2
    for text in (plain.text, slotted.text):
        assert newest in text.replace(" ;", ";") and answers.titles[HISTORY[0]] not in text
        assert text.endswith("<extra_id_0>")
    assert answers.ask(HISTORY, ["teacher", "ease"], 3, None).texts == ()
    (read,) = answers.ask(HISTORY, ["hybrid(delrec+teacher)"], 3, None).texts
    assert read.labels == ("DELRec",), "the part that reads"


@pytest.mark.parametrize(
    ("history", "systems", "k", "message"),
    [
        ((), ["teacher"], 5, "history is empty"),
        ([1] * 10_000, ["teacher"], 5, "has 10,000 items; at most 200"),
        ([1, 36], ["teacher"], 5, "not in the catalogue"),
        ([-1], ["teacher"], 5, "not in the catalogue"),
        ([1, "../../etc"], ["teacher"], 5, "not in the catalogue"),
        ([1, None, 2.5], ["teacher"], 5, "not in the catalogue"),
        (range(36), ["teacher"], 5, "every item"),
        ([1], [], 5, "No system is chosen"),
        ([1], ["teacher", "eese"], 5, "no such system"),
        ([1], [["teacher"]], 5, "no such system"),
        *(([1], ["teacher"], k, "whole number from 1 to 35") for k in (0, -3, 36, 2.5, 10**400)),
        *(([1], ["teacher"], k, "whole number") for k in (math.nan, math.inf, None, "7", [7])),
    ],
)
def test_wild_questions_are_refused_in_words_for_the_page(answers, history, systems, k, message):
    with pytest.raises(Refused, match=message) as refused:
        answers.ask(history, systems, k, None)
    assert "/" not in str(refused.value) and len(str(refused.value)) < 100


def test_an_item_is_added_if_the_catalogue_has_it(answers):
    assert answers.added((3, 4), 3) == (3, 4, 3)
    assert len(answers.added((1,) * (MOST_ITEMS - 1), 1)) == MOST_ITEMS
    for history, item in [((1,) * MOST_ITEMS, 1), ((), 36), ((), "Heat"), ((), None)]:
        with pytest.raises(Refused):
            answers.added(history, item)


def test_lists_have_a_longest_length_however_large_the_catalogue(recommender, monkeypatch):
    monkeypatch.setattr(answering, "MOST_LISTED", 5)
    answers = Answers(recommender, "SASRec")
    assert len(answers.ask(HISTORY, ["teacher"], 5, None).asked.lists["teacher"]) == 5
    with pytest.raises(Refused, match="from 1 to 5"):
        answers.ask(HISTORY, ["teacher"], 6, None)


def test_lists_among_the_teachers_best_are_no_longer_than_these(recommender, monkeypatch):
    monkeypatch.setattr(Recommender, "listed", 4)
    answers = Answers(recommender, "SASRec")
    assert len(answers.ask(HISTORY, ["teacher"], 5, None).asked.lists["teacher"]) == 5
    with pytest.raises(Refused, match="from 1 to 4"):
        answers.ask(HISTORY, ["teacher", "hybrid(delrec+teacher)"], 5, None)
    teacher, delrec = answers.ask(HISTORY, ["teacher", "delrec"], 4, None).listings
    assert (teacher.among, delrec.among) == (None, 4)


def test_a_run_that_answers_no_new_history_is_refused(recommender, monkeypatch):
    monkeypatch.setattr(recommender, "systems", ())
    with pytest.raises(UserError, match="no system of this workdir answers a new history"):
        Answers(recommender, "SASRec")


@pytest.mark.parametrize(
    ("error", "shown", "logged"),
    [
        (Refused("No system is chosen."), "No system is chosen.", ""),
        (UserError("/home/ann/runs/x: damaged"), FAILED, "delrec: /home/ann/runs/x: damaged"),
        (KeyError("secret"), FAILED, "Traceback"),
    ],
)
def test_only_refusals_reach_the_page(error, shown, logged, capsys):
    def ask():
        raise error

    assert answered(ask) == shown
    assert logged in capsys.readouterr().err


def test_searching_finds_all_words_and_the_closest_first():
    titles = ("The Heat of Night", "Heat Wave", "Heat", "Night (and) Day", "Ödipus")
    search = Search(titles)
    assert search("heat") == ((2, 1, 0), 3), "the title itself, then its beginning"
    assert search(" night  HEAT ") == ((0,), 1)
    assert search("(and)").items == (3,) and search("ödi").items == (4,)
    assert search("nothing") == ((), 0) and search("")[1] == 5
    assert search("heat" * 10_000) == ((), 0)
    many = Search([f"Title {number}" for number in range(100)])("title")
    assert many == (tuple(range(SHOWN)), 100)


def test_what_is_shown_is_escaped(recommender):
    answers = Answers(recommender, "SASRec")
    html = render.lists(answers.ask(HISTORY, ["teacher", "delrec"], 3, None))
    assert "Compared with" not in html and html.count(", with loading") == 2
    before = Asked(("<script>alert(1)</script>",), {"teacher": (9, 3), "delrec": (9, 3)})
    html = render.lists(answers.ask(HISTORY, ["teacher", "delrec"], 3, before))
    assert "&lt;script&gt;" in html and "<script" not in html
    assert "Compared with" in html and "No longer listed" in html
    assert "<b>" not in render.message("<b>") and 'role="alert"' in render.message("x")


@pytest.mark.parametrize(
    ("score", "text"), [(0.1, "0.100"), (12.345, "12.3"), (-300.4, "-300"), (0.00123456, "0.00123")]
)
def test_scores_have_three_digits(score, text):
    assert render._score(score) == text
