import pytest
from prompt_templates import TASKS

from delrec_jax.data import templates
from delrec_jax.data.templates import Field
from delrec_jax.errors import UserError
from delrec_jax.p2rec.preference_text import TEMPLATE


def test_domains():
    assert templates.domain("games").verb == "play"
    with pytest.raises(UserError, match=r"data\.domain is 'books'.*movies, games, items, home"):
        templates.domain("books")


@pytest.mark.parametrize("task", TASKS)
def test_every_template_asks_at_its_end_and_has_each_field_once(task):
    fields = [part for part in TASKS[task] if isinstance(part, Field)]
    assert fields[-1] is Field.MASK and TASKS[task][-1] is Field.MASK
    assert len(set(fields)) == len(fields)
    assert {Field.HISTORY, Field.PATTERN, Field.CANDIDATES} < set(fields)


@pytest.mark.parametrize("task", TASKS)
def test_text_and_fields_alternate(task):
    # `without` drops the text before a field: there must be exactly one.
    kinds = [isinstance(part, Field) for part in TASKS[task]]
    assert kinds == [False, True] * (len(kinds) // 2)


@pytest.mark.parametrize("name", templates.DOMAINS)
def test_texts_start_and_end_at_a_word(name):
    for text in templates.all_words(TASKS.values(), templates.domain(name), "SASRec"):
        assert text == text.strip() and "  " not in text
        assert "{" not in text and "}" not in text


def test_tokenizers_are_trained_on_the_words_that_they_were_always_trained_on():
    history = "The user has watched these movies in order :"
    pattern = ". The recommendation pattern of the SASRec model is :"
    candidates, gap = ". The candidate movies are :", ". The placeholder is :"
    assert templates.all_words(TASKS.values(), templates.domain("movies"), "SASRec") == [
        *(history, "; placeholder ;", gap, ". Then :", "; placeholder ;", pattern, candidates, gap),
        *(history, pattern, candidates, ". After the first the SASRec model ranks :"),
        ". The next movie predicted by the SASRec model might be :",
        *(history, ". Refer to the recommendation pattern of the SASRec model :", candidates),
        *(". The next movie the user will watch is :", ";"),
    ]


@pytest.mark.parametrize("name", templates.DOMAINS)
def test_a_preference_has_a_history_and_known_words_alone(name):
    assert [part for part in TEMPLATE if isinstance(part, Field)] == [Field.HISTORY]
    words = templates.domain(name)
    known = {
        word
        for text in templates.all_words(TASKS.values(), words, "SASRec")
        for word in text.split()
    }
    for part in TEMPLATE:
        if isinstance(part, str):
            text = templates.fill(part, words, "SASRec")
            assert set(text.split()) <= known and text == text.strip() and "  " not in text


def test_fill():
    words = templates.domain("movies")
    text = templates.fill("{noun} {plural} {verb} {past} {teacher}", words, "GRU4Rec")
    assert text == "movie movies watch watched GRU4Rec"


def test_without_drops_a_field_and_the_text_before_it():
    template = ("a", Field.HISTORY, "b", Field.PATTERN, "c", Field.CANDIDATES, "d", Field.MASK)
    assert templates.without(template, {Field.PATTERN}) == (
        *("a", Field.HISTORY),
        *("c", Field.CANDIDATES),
        *("d", Field.MASK),
    )
    assert templates.without(template, {Field.PATTERN, Field.CANDIDATES}) == (
        *("a", Field.HISTORY),
        *("d", Field.MASK),
    )
    assert templates.without(template, set()) == template


def test_a_pattern_is_moved_to_the_front_with_its_sentence():
    template = ("a", Field.HISTORY, ". b", Field.PATTERN, ". c", Field.CANDIDATES, ". d")
    moved = ("b", Field.PATTERN, ". a", Field.HISTORY, ". c", Field.CANDIDATES, ". d")
    assert templates.pattern_first(template) == moved
    assert templates.pattern_first(moved) == moved
    assert templates.pattern_first(("a", Field.HISTORY)) == ("a", Field.HISTORY)
    for own in ((Field.HISTORY, "b", Field.PATTERN), ("a", Field.HISTORY, Field.PATTERN)):
        with pytest.raises(UserError, match=r"prompts\.pattern_first .* set it to False"):
            templates.pattern_first(own)
