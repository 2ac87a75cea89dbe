"""The owners of a text's tokens: each is the item whose title the token is part of."""

from dataclasses import replace

import numpy as np
import pytest
from prompt_templates import EVERY

from delrec_jax.data import prompts, templates
from delrec_jax.data.prompts import PromptConfig
from delrec_jax.data.read_texts import read_text, with_owners, with_title_slots
from delrec_jax.data.sequential_recommendation import lsr_ids, lsr_text
from delrec_jax.delrec.pattern_simulating import rps_text
from delrec_jax.delrec.temporal_analysis import ta_text

# Words of titles and of templates share no token; titles have 1 to 9 words.
TITLES = [" ".join(f"t{item}w{word}" for word in range(1 + item % 9)) for item in range(12)]
SLOTS = np.array([900, 901], np.int32)
HISTORY = [3, 8, 1, 1, 7, 0, 11]


@pytest.fixture(scope="module", params=["paper", "brief"])
def make(request):
    known = {}

    def encode(texts):
        return [[known.setdefault(word, len(known) + 1) for word in t.split()] for t in texts]

    def pieces(**settings):
        config = PromptConfig(wording=request.param, **settings)
        words = {"domain": "items", "teacher": "SASRec", "sentinel": 899, "config": config}
        return with_owners(prompts.tokenise_pieces(encode, TITLES, EVERY, **words))

    return pieces, known


def builds():
    return {
        "ta": lambda pieces, pattern: ta_text(pieces, HISTORY[4:] + HISTORY[:4], pattern=pattern),
        "rps": lambda pieces, pattern: rps_text(pieces, HISTORY, pattern=pattern),
        "lsr": lambda pieces, pattern: lsr_ids(pieces, HISTORY, pattern=pattern),
    }


@pytest.mark.parametrize("task", builds())
@pytest.mark.parametrize(
    "settings",
    [{}, {"max_tokens": 72}, {"max_title_tokens": 2, "end_of_text": True, "pattern_first": True}],
    ids=["whole", "cut", "first"],
)
def test_owners_are_the_titles_that_tokens_belong_to(make, task, settings):
    pieces, known = make[0](**settings), make[1]
    word = {number: name for name, number in known.items()}
    text = read_text(pieces, SLOTS, builds()[task])
    assert len(text.ids) == len(text.owners) and text.owners.dtype == np.int32
    for token, owner in zip(text.ids.tolist(), text.owners.tolist(), strict=True):
        name = word.get(token, "")
        assert owner == (
            1 + int(name[1:].split("w")[0]) if name.startswith("t") and "w" in name else 0
        )
    assert set(SLOTS) < set(text.ids) and (text.owners > 0).sum() > 3


def test_titles_that_are_cut_to_fit_keep_their_owners(make):
    pieces = make[0](max_tokens=30, cut_to_fit=True)
    text = lsr_text(pieces, [8], np.zeros(0, np.int32))
    assert len(text.ids) <= 30 and (text.owners > 0).sum() == (text.owners == 9).sum() > 0


TITLE_SLOTS = np.arange(900, 900 + len(TITLES), dtype=np.int32)


@pytest.mark.parametrize("task", builds())
def test_a_slot_follows_each_title_and_belongs_to_it(make, task):
    plain, known = make[0](), make[1]
    pieces = with_title_slots(plain, TITLE_SLOTS)
    text = read_text(pieces, TITLE_SLOTS, builds()[task])
    bare = read_text(plain, np.zeros(0, np.int32), builds()[task])
    # Without its slots it is the text without a prompt, and a slot stands where a title of 1 + item % 9 words ends.
    slotted = text.ids >= 900
    np.testing.assert_array_equal(text.ids[~slotted], bare.ids)
    np.testing.assert_array_equal(text.owners[~slotted], bare.owners)
    np.testing.assert_array_equal(text.owners[slotted], text.ids[slotted] - 900 + 1)
    last = {known[title.split()[-1]]: item for item, title in enumerate(TITLES)}
    ends = [place for place, token in enumerate(text.ids.tolist()) if token in last]
    assert len(ends) == slotted.sum() >= 6
    for place in ends:
        assert text.ids[place + 1] == 900 + last[text.ids[place]]
    # Other patterns are read as ever: words, or none.
    for pattern in (np.array([1, 2], np.int32), np.zeros(0, np.int32)):
        np.testing.assert_array_equal(
            read_text(pieces, pattern, builds()[task]).ids,
            read_text(plain, pattern, builds()[task]).ids,
        )


def test_a_title_that_is_cut_keeps_its_slot(make):
    room = len(lsr_text(make[0](), [8], np.zeros(0, np.int32)).ids)
    pieces = with_title_slots(make[0](max_tokens=room, cut_to_fit=True), TITLE_SLOTS)
    text = lsr_text(pieces, [8], TITLE_SLOTS)
    owned = np.flatnonzero(text.owners == 9)
    # Nine words and a slot do not fit: the longest cut that does leaves eight.
    assert len(text.ids) == room and len(owned) == 9
    assert text.ids[owned[-1]] == 908 and (text.ids >= 900).sum() == 1


def test_pieces_without_owners_give_none(make):
    pieces = replace(make[0](), owners=None)
    assert lsr_text(pieces, HISTORY, SLOTS).owners is None
    slotted = with_title_slots(pieces, TITLE_SLOTS)
    assert lsr_text(slotted, HISTORY, TITLE_SLOTS).owners is None


def test_brief_words_keep_what_is_asked():
    known = [part for part in templates.worded(EVERY["ta"], "brief") if isinstance(part, str)]
    assert known.count(". The placeholder is :") == 2 and known[0] == "{past} :"
    lsr, rps = (templates.worded(EVERY[name], "brief") for name in ("lsr", "rps"))
    assert lsr[:4] == rps[:4] and lsr[-2:] == (". next {noun} :", templates.Field.MASK) == rps[-2:]
