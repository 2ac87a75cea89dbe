"""The text of P2Rec's information reconstruction: golden in each domain, its limits, and the other texts untouched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_templates import EVERY, TASKS

from delrec_jax.config import ParseConfig
from delrec_jax.data import prompts, templates
from delrec_jax.data.prompts import PromptConfig
from delrec_jax.data.templates import Field
from delrec_jax.errors import UserError
from delrec_jax.p2rec.preference_text import preference_pieces, preference_text

TITLES = ["Alien", "Big Fish", "Casino", "Dune", "Enemy Mine"]
CLOSING = ". The pattern of the user is :"


class Vocabulary:
    """Every word is a token; words are numbered as they come."""

    def __init__(self):
        self.words = []

    def encode_many(self, texts):
        return [[self._number(word) for word in text.split()] for text in texts]

    def _number(self, word):
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)

    def decode(self, ids):
        return " ".join(self.words[index] for index in ids)


def make(config, *, domain="movies", titles=TITLES):
    vocabulary = Vocabulary()
    pieces = prompts.tokenise_pieces(
        vocabulary.encode_many,
        titles,
        EVERY,
        domain=domain,
        teacher="SASRec",
        sentinel=vocabulary.encode_many(["MASK"])[0][0],
        config=config,
    )
    return vocabulary, pieces


@pytest.mark.parametrize(
    ("domain", "opening"),
    [
        ("movies", "The user has watched these movies in order :"),
        ("games", "The user has played these games in order :"),
        ("items", "The user has purchased these items in order :"),
        ("home", "The user has purchased these home products in order :"),
    ],
)
@pytest.mark.parametrize("config", [PromptConfig(), PromptConfig(show_candidates=True)])
def test_golden(domain, opening, config):
    vocabulary, pieces = make(config, domain=domain)
    text = preference_text(pieces, [2, 0, 1]).ids
    assert vocabulary.decode(text) == f"{opening} Casino ; Alien ; Big Fish {CLOSING}"
    assert text.dtype == np.int32


def test_an_item_alone_is_a_virtual_user():
    vocabulary, pieces = make(PromptConfig())
    text = vocabulary.decode(preference_text(pieces, [4]).ids)
    assert text == f"The user has watched these movies in order : Enemy Mine {CLOSING}"


@pytest.mark.parametrize("nobody", [[], np.zeros(0, np.int32)])
def test_nobody_prefers_nothing(nobody):
    _, pieces = make(PromptConfig())
    with pytest.raises(ValueError, match="at least one item"):
        preference_text(pieces, nobody)


@settings(max_examples=150)
@given(data=st.data())
def test_the_oldest_items_go_where_the_caller_s_own_limits_are_met(data):
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=6, max_size=6), label="title lengths")
    titles = [" ".join(f"t{i}.{j}" for j in range(n)) for i, n in enumerate(lengths)]
    history = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=14), label="history")
    limit = data.draw(st.integers(15, 60), label="max_tokens")
    most = data.draw(st.integers(1, 20), label="max_history")
    vocabulary, pieces = make(PromptConfig(max_tokens=16, max_history=1), titles=titles)
    own = preference_pieces(pieces, ParseConfig(max_tokens=limit), most)

    def written(count):
        shown = " ; ".join(titles[i] for i in history[len(history) - count :])
        return f"The user has watched these movies in order : {shown} {CLOSING}"

    fitting = [n for n in range(1, len(history) + 1) if len(written(n).split()) <= limit]
    if not fitting:
        with pytest.raises(UserError, match=rf"parse\.max_tokens is {limit}, but.* 17 tokens"):
            preference_text(own, history)
        return
    text, count = preference_text(own, history), min(max(fitting), most)
    assert vocabulary.decode(text.ids) == written(count)
    # What a target is made of, and what is pooled, is what stands there.
    assert text.items.tolist() == history[len(history) - count :]
    titles = " ".join(titles[item] for item in text.items)
    assert vocabulary.decode(text.ids[text.in_title == 1]) == titles
    assert len(text.in_title) == len(text.ids) and set(text.in_title) == {0, 1}


def test_a_title_that_does_not_fit_is_cut_where_the_config_says_so():
    titles = ["short", " ".join(f"w{n}" for n in range(100))]
    for cut in (True, False):
        config = PromptConfig(max_tokens=16, max_history=1, cut_to_fit=cut)
        vocabulary, pieces = make(config, titles=titles)
        own = preference_pieces(pieces, ParseConfig(max_tokens=40), 5)
        if not cut:
            with pytest.raises(UserError, match=r"prompts\.cut_to_fit=True"):
                preference_text(own, [0, 1])
            continue
        text = preference_text(own, [0, 1])
        # Of the lengths in `prompts._CUTS`, 16 is the longest that leaves room for the template.
        shown = " ".join(["short", *titles[1].split()[:16]])
        assert vocabulary.decode(text.ids[text.in_title == 1]) == shown
        assert text.items.tolist() == [0, 1] and len(text.ids) <= 40


def test_the_pieces_of_the_other_tasks_are_those_of_their_templates():
    vocabulary, pieces = make(PromptConfig(show_candidates=True, show_ranks=True))
    words = templates.domain("movies")
    assert {task for task, _ in pieces.tasks} == {*TASKS, "preference"}
    for task, template in TASKS.items():
        tokenised = [
            part if isinstance(part, Field) else vocabulary.decode(part)
            for part in pieces.tasks[task, True]
        ]
        assert tokenised == [
            part if isinstance(part, Field) else templates.fill(part, words, "SASRec")
            for part in template
        ]
        without = [part for part in pieces.tasks[task, False] if isinstance(part, Field)]
        assert without == [
            part for part in template if isinstance(part, Field) and part is not Field.PATTERN
        ]
