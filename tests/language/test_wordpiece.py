"""Tokenizers of BERT's kind: their special tokens, and texts from pieces."""

import pytest
from prompt_templates import EVERY
from tiny_bert import write_wordpiece
from tokenizers import Tokenizer as Backend

from delrec_jax.data import prompts, templates
from delrec_jax.data.sequential_recommendation import lsr_ids
from delrec_jax.data.title_tokens import NO_TOKENS
from delrec_jax.errors import UserError
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.p2rec.preference_text import PREFERENCE, preference_text

TITLES = [
    "Harbor of Glass",
    "The Quiet Harbor: Part 2",
    "Glass Moon, Paper Sun (1994)",
    'Post-it® Notes, 3" x 3" - 12 pads/pack',
    "Résumé & Café; l'été",
    "犬 and 猫",
    "Sun " + "x" * 120,  # longer than a word may be
    "##ing [unused] @user",
]
WORDS = ["The user watched these films in this order:", "A B C D E F G H I J K L M"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wordpiece")
    write_wordpiece(folder, TITLES[:4] + WORDS)
    return folder


@pytest.fixture(scope="module")
def tokenizer(directory):
    return Tokenizer(directory)


def test_conventions(tokenizer):
    assert (tokenizer.begin, tokenizer.end, tokenizer.sentinel(0)) == ((2,), (3,), 4)
    assert tokenizer.frame(end_of_text=False) == tokenizer.frame(end_of_text=True) == ((2,), (3,))
    assert tokenizer.decode([0, 1, 2, 3, 4]) == "[PAD] [UNK] [CLS] [SEP] [MASK]"
    assert tokenizer.encode("HARBOR") == tokenizer.encode("harbor")
    codes = tokenizer.codes(13)
    assert len({*codes}) == 13 and tokenizer.encode("B") == [codes[1]] and 1 not in codes
    with pytest.raises(UserError, match=r"only one \[MASK\]; the text asks 2 questions"):
        tokenizer.sentinel(1)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_pieces_at_white_space_concatenate_to_the_whole(tokenizer, directory, cut):
    words = " ".join(TITLES + WORDS).split(" ")
    pieces = [" ".join(words[i : i + cut]) for i in range(0, len(words), cut)]
    joined = [i for ids in tokenizer.encode_many(pieces) for i in ids]
    assert joined == tokenizer.encode(" ".join(words))
    whole = Backend.from_file(str(directory / "tokenizer.json"))
    assert joined == whole.encode(" ".join(words), add_special_tokens=False).ids


@pytest.mark.parametrize("task", ["lsr", PREFERENCE])
def test_a_text_is_that_of_its_words_between_special_tokens(tokenizer, task):
    begin, end = tokenizer.frame(end_of_text=False)
    pieces = prompts.tokenise_pieces(
        tokenizer.encode_many,
        TITLES,
        EVERY,
        domain="items",
        teacher="SASRec",
        sentinel=tokenizer.sentinel(0),
        begin=begin,
        end=end,
        config=prompts.PromptConfig(),
    )
    history, asks_next = [3, 5, 7], task != PREFERENCE
    ids = (
        lsr_ids(pieces, history, pattern=NO_TOKENS)
        if asks_next
        else preference_text(pieces, history).ids
    )
    words = templates.fill(
        " ".join(
            part
            if isinstance(part, str)
            else {
                templates.Field.HISTORY: " ; ".join(TITLES[i] for i in (3, 5, 7)),
                templates.Field.MASK: "[MASK]",
            }.get(part, "")
            for part in templates.without(
                EVERY[task], {templates.Field.PATTERN, templates.Field.CANDIDATES}
            )
        ),
        templates.domain("items"),
        "SASRec",
    )
    assert ids.tolist() == [2, *tokenizer.encode(words), 3]


def test_another_place_of_the_padding_is_refused(tmp_path):
    write_wordpiece(tmp_path, TITLES, first="[UNK]")
    with pytest.raises(UserError, match=r"\[PAD\] is 1, \[CLS\] 2 and \[SEP\] 3; a BERT tokenizer"):
        Tokenizer(tmp_path)
