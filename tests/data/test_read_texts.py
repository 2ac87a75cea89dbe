"""The owners of a text's tokens: each is the item whose title the token is part of."""

from dataclasses import replace

import numpy as np
import pytest
from prompt_templates import EVERY

from delrec_jax.data import prompts, templates
from delrec_jax.data.prompts import PromptConfig
from delrec_jax.data.read_texts import next_item_text, read_text, with_owners
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
        "lsr": lambda pieces, pattern: prompts.recommendation(pieces, HISTORY, pattern=pattern),
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
    text = next_item_text(pieces, [8], np.zeros(0, np.int32))
    assert len(text.ids) <= 30 and (text.owners > 0).sum() == (text.owners == 9).sum() > 0


def test_pieces_without_owners_give_none(make):
    pieces = replace(make[0](), owners=None)
    assert next_item_text(pieces, HISTORY, SLOTS).owners is None


def test_brief_words_keep_what_is_asked():
    known = [part for part in templates.worded(EVERY["ta"], "brief") if isinstance(part, str)]
    assert known.count(". The placeholder is :") == 2 and known[0] == "{past} :"
    lsr, rps = (templates.worded(EVERY[name], "brief") for name in ("lsr", "rps"))
    assert lsr[:4] == rps[:4] and lsr[-2:] == (". next {noun} :", templates.Field.MASK) == rps[-2:]
