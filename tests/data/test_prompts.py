import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_templates import EVERY, TASKS

from delrec_jax.data import prompts, templates
from delrec_jax.data.prompts import NO_PATTERN, PromptConfig
from delrec_jax.data.sequential_recommendation import lsr_ids
from delrec_jax.data.templates import Field
from delrec_jax.delrec.pattern_simulating import rps_text
from delrec_jax.delrec.temporal_analysis import ta_ends, ta_min_length, ta_text
from delrec_jax.errors import UserError
from delrec_jax.p2rec.preference_text import preference_text
from delrec_jax.pretraining.text_halves import opening, question

FLAN = Path(__file__).resolve().parents[3] / "shared" / "models" / "flan-t5-small-tokenizer"
TITLES = ["Alien", "Big Fish", "Casino", "Dune", "Enemy Mine", "Fargo", "Gattaca", "Heat", "Ikiru"]
EVERYTHING = PromptConfig(show_candidates=True, show_ranks=True)


class Words:
    """A tokenizer whose tokens are words; it learns them as they come."""

    def __init__(self):
        self.known = {}

    def encode(self, text):
        return [self.known.setdefault(word, len(self.known) + 1) for word in text.split()]

    def encode_many(self, texts):
        return [self.encode(text) for text in texts]

    def array(self, text):
        return np.array(self.encode(text), np.int32)

    def decode(self, ids):
        word = {number: word for word, number in self.known.items()}
        return " ".join(word[int(i)] for i in ids)


def make(config=EVERYTHING, *, domain="movies", titles=TITLES, codes=""):
    words = Words()
    pieces = prompts.tokenise_pieces(
        words.encode_many,
        titles,
        EVERY,
        domain=domain,
        teacher="SASRec",
        sentinel=words.encode("MASK")[0],
        codes=words.encode(codes),
        end=[1] * config.end_of_text,
        config=config,
    )
    return words, pieces


# i_1..i_7 are Alien to Gattaca; with a = 4 the example's gap is Casino and the label is Fargo.
GOLDEN = {
    ("ta", "movies"): (
        "The user has watched these movies in order : Alien ; Big Fish ; placeholder ; Dune . "
        "The placeholder is : Casino . Then : Dune ; Enemy Mine ; placeholder ; Gattaca . "
        "The recommendation pattern of the SASRec model is : P0 P1 . "
        "The candidate movies are : Heat ; Fargo ; Ikiru . "
        "The placeholder is : MASK"
    ),
    ("ta", "games"): (
        "The user has played these games in order : Alien ; Big Fish ; placeholder ; Dune . "
        "The placeholder is : Casino . Then : Dune ; Enemy Mine ; placeholder ; Gattaca . "
        "The recommendation pattern of the SASRec model is : P0 P1 . "
        "The candidate games are : Heat ; Fargo ; Ikiru . "
        "The placeholder is : MASK"
    ),
    ("ta", "items"): (
        "The user has purchased these items in order : Alien ; Big Fish ; placeholder ; Dune . "
        "The placeholder is : Casino . Then : Dune ; Enemy Mine ; placeholder ; Gattaca . "
        "The recommendation pattern of the SASRec model is : P0 P1 . "
        "The candidate items are : Heat ; Fargo ; Ikiru . "
        "The placeholder is : MASK"
    ),
    ("ta", "home"): (
        "The user has purchased these home products in order : Alien ; Big Fish ; placeholder ; "
        "Dune . "
        "The placeholder is : Casino . Then : Dune ; Enemy Mine ; placeholder ; Gattaca . "
        "The recommendation pattern of the SASRec model is : P0 P1 . "
        "The candidate home products are : Heat ; Fargo ; Ikiru . "
        "The placeholder is : MASK"
    ),
    ("rps", "movies"): (
        "The user has watched these movies in order : Alien ; Big Fish ; Casino . "
        "The recommendation pattern of the SASRec model is : P0 P1 . "
        "The candidate movies are : Heat ; Fargo ; Ikiru . "
        "After the first the SASRec model ranks : Ikiru ; Heat . "
        "The next movie predicted by the SASRec model might be : MASK"
    ),
    ("rps", "games"): (
        "The user has played these games in order : Alien ; Big Fish ; Casino . "
        "The recommendation pattern of the SASRec model is : P0 P1 . "
        "The candidate games are : Heat ; Fargo ; Ikiru . "
        "After the first the SASRec model ranks : Ikiru ; Heat . "
        "The next game predicted by the SASRec model might be : MASK"
    ),
    ("rps", "items"): (
        "The user has purchased these items in order : Alien ; Big Fish ; Casino . "
        "The recommendation pattern of the SASRec model is : P0 P1 . "
        "The candidate items are : Heat ; Fargo ; Ikiru . "
        "After the first the SASRec model ranks : Ikiru ; Heat . "
        "The next item predicted by the SASRec model might be : MASK"
    ),
    ("rps", "home"): (
        "The user has purchased these home products in order : Alien ; Big Fish ; Casino . "
        "The recommendation pattern of the SASRec model is : P0 P1 . "
        "The candidate home products are : Heat ; Fargo ; Ikiru . "
        "After the first the SASRec model ranks : Ikiru ; Heat . "
        "The next home product predicted by the SASRec model might be : MASK"
    ),
    ("lsr", "movies"): (
        "The user has watched these movies in order : Alien ; Big Fish ; Casino . "
        "Refer to the recommendation pattern of the SASRec model : P0 P1 . "
        "The candidate movies are : Heat ; Fargo ; Ikiru . "
        "The next movie the user will watch is : MASK"
    ),
    ("lsr", "games"): (
        "The user has played these games in order : Alien ; Big Fish ; Casino . "
        "Refer to the recommendation pattern of the SASRec model : P0 P1 . "
        "The candidate games are : Heat ; Fargo ; Ikiru . "
        "The next game the user will play is : MASK"
    ),
    ("lsr", "items"): (
        "The user has purchased these items in order : Alien ; Big Fish ; Casino . "
        "Refer to the recommendation pattern of the SASRec model : P0 P1 . "
        "The candidate items are : Heat ; Fargo ; Ikiru . "
        "The next item the user will purchase is : MASK"
    ),
    ("lsr", "home"): (
        "The user has purchased these home products in order : Alien ; Big Fish ; Casino . "
        "Refer to the recommendation pattern of the SASRec model : P0 P1 . "
        "The candidate home products are : Heat ; Fargo ; Ikiru . "
        "The next home product the user will purchase is : MASK"
    ),
}
CANDIDATES = [7, 5, 8]


def build(task, pieces, pattern):
    if task == "ta":
        return ta_text(pieces, list(range(7)), pattern=pattern, candidates=CANDIDATES)
    if task == "rps":
        return rps_text(pieces, [0, 1, 2], pattern=pattern, candidates=CANDIDATES, ranked=[8, 7])
    return lsr_ids(pieces, [0, 1, 2], pattern=pattern, candidates=CANDIDATES)


@pytest.mark.parametrize(("task", "domain"), GOLDEN)
def test_golden(task, domain):
    words, pieces = make(domain=domain)
    text = build(task, pieces, words.array("P0 P1"))
    assert words.decode(text) == GOLDEN[task, domain]
    assert text.dtype == np.int32


def test_candidates_and_ranks_are_left_out_unless_asked_for():
    words, pieces = make(PromptConfig())
    texts = {task: words.decode(build(task, pieces, words.array("P0 P1"))) for task in TASKS}
    assert texts == {
        "ta": (
            "The user has watched these movies in order : Alien ; Big Fish ; placeholder ; Dune . "
            "The placeholder is : Casino . Then : Dune ; Enemy Mine ; placeholder ; Gattaca . "
            "The recommendation pattern of the SASRec model is : P0 P1 . "
            "The placeholder is : MASK"
        ),
        "rps": (
            "The user has watched these movies in order : Alien ; Big Fish ; Casino . "
            "The recommendation pattern of the SASRec model is : P0 P1 . "
            "The next movie predicted by the SASRec model might be : MASK"
        ),
        "lsr": (
            "The user has watched these movies in order : Alien ; Big Fish ; Casino . "
            "Refer to the recommendation pattern of the SASRec model : P0 P1 . "
            "The next movie the user will watch is : MASK"
        ),
    }


def test_ranks_without_candidates():
    words, pieces = make(PromptConfig(show_ranks=True))
    assert words.decode(build("rps", pieces, words.array("P0"))).endswith(
        "model is : P0 . After the first the SASRec model ranks : Ikiru ; Heat . "
        "The next movie predicted by the SASRec model might be : MASK"
    )


def test_the_prompt_may_stand_before_the_history_and_the_text_may_end():
    config = replace(EVERYTHING, pattern_first=True, end_of_text=True)
    words, pieces = make(config)
    for task in TASKS:
        *text, end = build(task, pieces, words.array("P0 P1"))
        opens = "The user has watched these movies"
        expected = GOLDEN[task, "movies"]
        (sentence,) = re.findall(r" \. ((?:The|Refer)[^.]* pattern [^.]* : P0 P1) \.", expected)
        expected = f"{sentence} . {expected.replace(f' {sentence} .', '', 1)}"
        assert words.decode(text) == expected and end == 1
        *bare, end = build(task, pieces, np.zeros(0, np.int32))
        assert words.decode(bare).startswith(opens) and end == 1
        assert words.decode(bare) == expected.replace(f"{sentence} . ", "", 1)
    lsr = words.decode(build("lsr", pieces, words.array("P0 P1"))[:-1])
    assert lsr == (
        "Refer to the recommendation pattern of the SASRec model : P0 P1 . "
        "The user has watched these movies in order : Alien ; Big Fish ; Casino . "
        "The candidate movies are : Heat ; Fargo ; Ikiru . The next movie the user will watch is : MASK"
    )


def test_the_ends_of_a_preference_count_like_any_token():
    _, plain = make(PromptConfig())
    text, begin = preference_text(plain, [0, 2]), np.array([2], np.int32)
    ended = replace(make(PromptConfig(end_of_text=True))[1], begin=begin)
    found = preference_text(ended, [0, 2])
    assert found.ids.tolist() == [2, *text.ids.tolist(), 1]
    assert found.in_title.tolist() == [0, *text.in_title.tolist(), 0]
    _, tight = make(PromptConfig(end_of_text=True, max_tokens=len(text.ids) + 1))
    shorter = preference_text(plain, [2]).ids.tolist()
    assert preference_text(replace(tight, begin=begin), [0, 2]).ids.tolist() == [2, *shorter, 1]


LONG = [" ".join(f"t{item}.{place}" for place in range(40 if item > 5 else 5)) for item in range(9)]


@pytest.mark.parametrize("task", TASKS)
def test_titles_are_cut_only_where_nothing_else_would_fit_and_no_more_than_needed(task):
    roomy = replace(EVERYTHING, max_history=1)
    cut = {
        most: build(task, make(replace(roomy, max_title_tokens=most), titles=LONG)[1], NO_PATTERN)
        for most in (40, 32, 24, 16)
    }
    tight = replace(EVERYTHING, max_tokens=len(cut[24]))
    with pytest.raises(UserError, match=r"prompts\.cut_to_fit=True"):
        build(task, make(tight, titles=LONG)[1], NO_PATTERN)
    words, pieces = make(replace(tight, cut_to_fit=True), titles=LONG)
    # Shorter titles leave room for more of the history.
    found = words.decode(build(task, pieces, NO_PATTERN)).split()
    assert len(cut[32]) > tight.max_tokens >= len(found) >= len(cut[24])
    assert "t7.23" in found and "t7.24" not in found and "t5.4" in found and found[-1] == "MASK"
    _, pieces = make(replace(EVERYTHING, cut_to_fit=True), titles=LONG)
    np.testing.assert_array_equal(
        build(task, pieces, NO_PATTERN), build(task, make(titles=LONG)[1], NO_PATTERN)
    )
    with pytest.raises(UserError, match=r"prompts\.max_tokens is 20"):
        build(
            task, make(replace(tight, cut_to_fit=True, max_tokens=20), titles=LONG)[1], NO_PATTERN
        )


@pytest.mark.parametrize("task", TASKS)
def test_an_empty_pattern_leaves_its_sentence_out(task):
    words, pieces = make()
    sentence = {
        "ta": ". The recommendation pattern of the SASRec model is : P0 P1 ",
        "rps": ". The recommendation pattern of the SASRec model is : P0 P1 ",
        "lsr": ". Refer to the recommendation pattern of the SASRec model : P0 P1 ",
    }[task]
    expected = GOLDEN[task, "movies"]
    assert expected.count(sentence) == 1
    text = words.decode(build(task, pieces, np.zeros(0, np.int32)))
    assert text == expected.replace(sentence, "")


def test_codes_stand_before_the_candidates_and_show_them():
    words, pieces = make(PromptConfig(), codes="A B C D")
    text = words.decode(build("lsr", pieces, words.array("P0 P1")))
    listed = ". The candidate movies are : A Heat ; B Fargo ; C Ikiru . "
    assert text == GOLDEN["lsr", "movies"].replace(
        ". The candidate movies are : Heat ; Fargo ; Ikiru . ", listed
    )
    assert listed in text


@pytest.mark.parametrize("a", [4, 6])
@pytest.mark.parametrize("extra", [0, 1, 4])
def test_the_label_of_ta_is_nowhere_in_its_text_unless_it_is_shown_as_a_candidate(a, extra):
    titles = [f"title{i}" for i in range(20)]
    sequence = list(range(a + 2 + extra))
    label = titles[sequence[-2]]
    words, pieces = make(PromptConfig(ta_example=a), titles=titles)
    text = words.decode(ta_text(pieces, sequence, pattern=words.array("P0")))
    assert label not in text.split()
    # All others are shown; i_a closes the example and opens the query.
    shown = [word for word in text.split() if word.startswith("title")]
    expected = [*sequence[: a - 2], a - 1, a - 2, *sequence[a - 1 : -2], sequence[-1]]
    assert shown == [titles[i] for i in expected]
    words, pieces = make(PromptConfig(ta_example=a, show_candidates=True), titles=titles)
    text = words.decode(
        ta_text(pieces, sequence, pattern=words.array("P0"), candidates=[15, sequence[-2]])
    )
    assert text.split().count(label) == 1
    assert f"are : title15 ; {label} ." in text


def test_a_sequence_too_short_for_ta():
    words, pieces = make()
    assert ta_min_length(pieces.config) == 6
    with pytest.raises(ValueError, match="TA needs 6 items, not 5"):
        ta_text(pieces, list(range(5)), pattern=words.array("P0"))


@settings(max_examples=150)
@given(data=st.data())
def test_truncation_drops_only_the_oldest_history(data):
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=9, max_size=9), label="title lengths")
    titles = [" ".join(f"t{i}.{j}" for j in range(n)) for i, n in enumerate(lengths)]
    task = data.draw(st.sampled_from(["ta", "rps", "lsr"]))
    show = data.draw(st.booleans())
    history = data.draw(st.lists(st.integers(0, 8), max_size=14), label="history")
    if task == "ta":
        history = [0, 1, 2, *history, 3, 4, 5]
    config = PromptConfig(
        max_tokens=data.draw(st.integers(10, 160)),
        max_history=data.draw(st.integers(1, 10)),
        show_candidates=show,
    )
    words, pieces = make(config, titles=titles)
    slots = " ".join(f"P{i}" for i in range(data.draw(st.integers(0, 4))))
    pattern = words.array(slots)
    function = {
        "ta": ta_text,
        "rps": rps_text,
        "lsr": lsr_ids,
    }[task]
    try:
        text = words.decode(function(pieces, history, pattern=pattern, candidates=[6, 7]))
    except UserError:
        # Refused only when even one item of history would not have fitted.
        roomy = PromptConfig(show_candidates=show, max_history=1)
        text = function(make(roomy, titles=titles)[1], history, pattern=pattern, candidates=[6, 7])
        assert len(text) > config.max_tokens
        return
    assert len(text.split()) <= config.max_tokens
    assert text.endswith("MASK") and text.count("MASK") == 1
    assert slots in text
    if show:
        assert f"The candidate movies are : {titles[6]} ; {titles[7]} ." in text
    shown = history[3:-2] if task == "ta" else history
    allowed = [
        " ; ".join(titles[i] for i in shown[len(shown) - n :])
        for n in range(min(len(shown), config.max_history) + 1)
    ]
    opens = "The user has watched these movies in order : "
    if task == "ta":
        opens = ". Then : "
    after = text.split(opens, 1)[1]
    kept = max(n for n, h in enumerate(allowed) if after.startswith(h))
    assert kept or not shown
    # One item more would not have fitted, or was one too many.
    if kept < len(allowed) - 1:
        longer = len(text.split()) + len(allowed[kept + 1].split()) - len(allowed[kept].split())
        assert longer > config.max_tokens


def test_the_shortest_text_that_fits_and_one_token_less():
    words, pieces = make(PromptConfig())
    needed = len(lsr_ids(pieces, [2], pattern=words.array("P0")))
    words, pieces = make(PromptConfig(max_tokens=needed))
    text = words.decode(lsr_ids(pieces, [0, 1, 2], pattern=words.array("P0")))
    assert "in order : Casino . Refer" in text
    words, pieces = make(PromptConfig(max_tokens=needed - 1))
    with pytest.raises(UserError) as error:
        lsr_ids(pieces, [0, 1, 2], pattern=words.array("P0"))
    message = str(error.value)
    assert f"prompts.max_tokens is {needed - 1}" in message and f"{needed - 1} tokens" in message
    assert "distill.length" in message and "prompts.show_candidates" in message


def test_an_empty_history_does_not_lift_the_limit():
    words, pieces = make(PromptConfig(max_tokens=5))
    with pytest.raises(UserError, match="max_tokens is 5"):
        lsr_ids(pieces, [], pattern=words.array("P0"))


def test_long_titles_are_cut_wherever_they_stand():
    titles = [f"t{i} and more words" for i in range(9)]
    words, pieces = make(
        PromptConfig(show_candidates=True, show_ranks=True, max_title_tokens=2), titles=titles
    )
    _, short = make(titles=[f"t{i} and" for i in range(9)])
    for task in TASKS:
        text = words.decode(build(task, pieces, words.array("P0")))
        assert "and ;" in text and "more" not in text
        assert len(text.split()) == len(build(task, short, words.array("P0")))


@pytest.mark.parametrize("slots", ["P0 P1", ""])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("task", ["rps", "lsr"])
def test_opening_and_question_are_the_two_halves_of_a_text(task, first, slots):
    words, pieces = make(PromptConfig(pattern_first=first))
    pieces = replace(pieces, begin=words.array("[CLS]"))
    pattern = words.array(slots)
    halves = [
        opening(pieces, task, [0, 1, 2], pattern),
        question(pieces, task, pattern),
    ]
    np.testing.assert_array_equal(np.concatenate(halves), build(task, pieces, pattern))
    assert words.decode(halves[0]).endswith("; Casino")


# What `prompts` did before it gathered: a loop over items, one array a title.
def naive_join(pieces, items, codes=None):
    parts = []
    for place, item in enumerate(items):
        named = [] if codes is None else [np.array([codes[place]], np.int32)]
        parts += [pieces.separator, *named, pieces.titles[item]]
    return np.concatenate([np.zeros(0, np.int32), *parts[1:]])


def naive_newest(pieces, history, room):
    kept = []
    for item in reversed(history[max(0, len(history) - pieces.config.max_history) :]):
        room -= len(pieces.titles[item]) + (len(pieces.separator) if kept else 0)
        if room < 0:
            break
        kept.append(item)
    return kept[::-1]


def naive_text(pieces, task, items, *, pattern, candidates, ranked):
    """The tokens of a text, or None where it is refused."""
    config = pieces.config
    fields = {Field.PATTERN: pattern, Field.MASK: np.array([pieces.sentinel], np.int32)}
    fields[Field.RANKED] = naive_join(pieces, ranked)
    fields[Field.CANDIDATES] = naive_join(pieces, candidates, pieces.codes or None)
    history = list(items)
    if task == "ta":
        a = config.ta_example
        fields[Field.EARLIER] = naive_join(pieces, items[: a - 2])
        fields[Field.GAP_EARLIER] = pieces.titles[items[a - 2]]
        fields[Field.AFTER_EARLIER] = pieces.titles[items[a - 1]]
        fields[Field.AFTER] = pieces.titles[items[-1]]
        history = list(items[a - 1 : -2])
    template = pieces.tasks[task, len(pattern) > 0]
    fields[Field.HISTORY] = np.zeros(0, np.int32)
    room = config.max_tokens - config.end_of_text - len(pieces.begin)
    room -= sum(len(fields[part]) if isinstance(part, Field) else len(part) for part in template)
    kept = naive_newest(pieces, history, room)
    if room < 0 or (history and not kept):
        return None
    fields[Field.HISTORY] = naive_join(pieces, kept)
    parts = [fields[part] if isinstance(part, Field) else part for part in template]
    ends = [pieces.begin, *parts, [1] * config.end_of_text]
    return np.concatenate(ends).astype(np.int32)


def pieces_of_tokens(titles, separator, codes, begin, config):
    """Pieces whose titles and separator are any tokens: long, single, or none at all."""
    words = Words()
    known = {f"title {index}": title for index, title in enumerate(titles)}
    known[templates.SEPARATOR] = separator

    def encode_many(texts):
        return [known[text] if text in known else words.encode(text) for text in texts]

    names = [f"title {index}" for index in range(len(titles))]
    return prompts.tokenise_pieces(
        encode_many,
        names,
        EVERY,
        domain="movies",
        teacher="SASRec",
        sentinel=999,
        codes=codes,
        begin=begin,
        end=[1] * config.end_of_text,
        config=config,
    )


@settings(max_examples=300)
@given(data=st.data())
def test_texts_are_those_of_a_loop_over_items(data):
    tokens = st.lists(st.integers(100, 900), max_size=6)
    titles = data.draw(st.lists(tokens, min_size=1, max_size=8), label="titles")
    separator = data.draw(st.lists(st.integers(50, 60), max_size=2), label="separator")
    codes = data.draw(st.sampled_from([[], [10, 11, 12, 13]]), label="codes")
    config = PromptConfig(
        max_tokens=data.draw(st.integers(20, 130), label="max_tokens"),
        max_history=data.draw(st.integers(1, 12), label="max_history"),
        show_candidates=data.draw(st.booleans()),
        show_ranks=data.draw(st.booleans()),
        max_title_tokens=data.draw(st.sampled_from([0, 1, 3])),
        pattern_first=data.draw(st.booleans()),
        end_of_text=data.draw(st.booleans()),
    )
    begin = data.draw(st.sampled_from([[], [2]]), label="begin")
    pieces = pieces_of_tokens(titles, separator, codes, begin, config)
    assert [title.tolist() for title in pieces.titles] == [
        title[: config.max_title_tokens or None] for title in titles
    ]
    item = st.integers(0, len(titles) - 1)
    task = data.draw(st.sampled_from(["ta", "rps", "lsr"]))
    items = data.draw(st.lists(item, min_size=6 if task == "ta" else 0, max_size=20), label="items")
    stored = data.draw(st.booleans(), label="as stored")  # int32, as corpora hold them
    shown = np.array(items, np.int32) if stored else items
    fields = {
        "pattern": np.array(data.draw(st.lists(st.integers(1000, 1003), max_size=3)), np.int32),
        "candidates": data.draw(st.lists(item, max_size=4), label="candidates"),
    }
    ranked = data.draw(st.lists(item, max_size=3)) if task == "rps" else []
    expected = naive_text(pieces, task, items, ranked=ranked, **fields)
    function = {
        "ta": ta_text,
        "rps": lambda *a, **k: rps_text(*a, ranked=ranked, **k),
        "lsr": lsr_ids,
    }[task]
    if expected is None:
        with pytest.raises(UserError, match=r"prompts\.max_tokens is"):
            function(pieces, shown, **fields)
        return
    found = function(pieces, shown, **fields)
    assert found.dtype == np.int32 and found.tolist() == expected.tolist()


def test_more_candidates_than_codes_are_refused():
    pieces = pieces_of_tokens([[100]], [50], [10, 11], [], EVERYTHING)
    with pytest.raises(ValueError, match="3 candidates, but only 2 have a code"):
        prompts.list_candidates(pieces, [0, 0, 0])


def test_titles_read_like_a_sequence_of_arrays():
    titles = pieces_of_tokens([[100, 101], [], [102]], [50, 51], [], [], PromptConfig()).titles
    assert len(titles) == 3
    assert [title.tolist() for title in titles] == [[100, 101], [], [102]]
    assert titles[np.int32(2)].tolist() == titles[-1].tolist() == [102]
    assert titles.joined([2, 1, 0]).tolist() == [102, 50, 51, 50, 51, 100, 101]
    assert titles.joined([]).tolist() == [] and titles.joined([]).dtype == np.int32
    with pytest.raises(IndexError):
        titles[3]


HARD_TITLES = [
    *("Toy Story (1995)", "Se7en", "101 Dalmatians", "L.A. Confidential", "Amélie", "M*A*S*H"),
    *("What's Eating Gilbert Grape?", "Harbor: A Tale, Vol. 2", "$5 a Day", "Half-Life 2", "½ Cup"),
    *("Pokémon™ Let's Go", "Ünïcode — dash", "3M Scotch-Brite, 6 Pack", "'Til There Was You"),
    *("千と千尋の神隠し", "(500) Days of Summer", "#Alive", "@Home & Garden", "50% Off; 2nd ed."),
]


@pytest.mark.real_data
@pytest.mark.parametrize("task", TASKS)
def test_pieces_are_the_tokens_of_the_whole_text_in_flan_t5(task):
    if not FLAN.is_dir():
        pytest.skip("no flan-t5-small-tokenizer beside the repository")
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(FLAN))

    def encode_many(texts):
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    def text_of(titles):
        """The same text as a person would write it."""
        fake, fake_pieces = make(titles=titles)
        return fake.decode(build(task, fake_pieces, fake.array("be kind")))

    wrong = []
    for start in range(len(HARD_TITLES)):
        titles = (HARD_TITLES[start:] + HARD_TITLES[:start])[:9]
        sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
        pieces = prompts.tokenise_pieces(
            encode_many,
            titles,
            EVERY,
            domain="movies",
            teacher="SASRec",
            sentinel=sentinel,
            config=EVERYTHING,
        )
        ids = build(task, pieces, np.array(encode_many(["be kind"])[0], np.int32))
        whole = text_of(titles).removesuffix(" MASK")
        if ids.tolist() != [*encode_many([whole])[0], sentinel]:
            wrong.append(titles)
    assert wrong == []


def test_ta_is_asked_only_where_the_answer_stands_nowhere_else():
    config = PromptConfig(ta_example=4)
    assert ta_ends(range(8), config).tolist() == [6, 7, 8]
    assert ta_ends(range(5), config).tolist() == []
    # Asked for i_{n-1}: 4, 1 (seen before), 7 of the first 6, 7 and 8 items.
    assert ta_ends([0, 1, 2, 3, 4, 1, 7, 8], config).tolist() == [6, 8]
    assert ta_ends([0, 1, 2, 3, 9, 9], config).tolist() == []


@pytest.mark.parametrize(("length", "left"), [(300, 11), (257, 11), (256, 10), (9, 1), (8, 0)])
def test_the_cuts_of_a_long_title(length, left):
    long = " ".join(f"w{place}" for place in range(length))
    _, pieces = make(titles=[long, *TITLES[1:]])
    cuts = [256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8]
    assert [len(one.titles[0]) for one in pieces.shorter] == cuts[11 - left :]


def test_settings_start_as_documented():
    off = ("show_candidates", "show_ranks", "cut_to_fit", "pattern_first", "end_of_text")
    assert asdict(PromptConfig()) == {
        **{"wording": "paper", "max_tokens": 512, "max_history": 50, "max_title_tokens": 0},
        **{"ta_example": 4, **dict.fromkeys(off, False)},
    }
    with pytest.raises(UserError, match=r"prompts\.max_history is 0"):
        PromptConfig(max_history=0)
