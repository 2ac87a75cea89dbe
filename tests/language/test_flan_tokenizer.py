"""Flan-T5's true tokenizer on every title of every data set at hand, against three other readings of its file.

The data stay where they are: DELREC_SHARED names the folder, else it is looked for beside the repository.
"""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from delrec_jax.data.corpora.atomic_files import read_atomic_table
from delrec_jax.language.tokenizer import UNK, Tokenizer
from delrec_jax.padding import END_TOKEN

SHARED = Path(os.environ.get("DELREC_SHARED") or Path(__file__).resolve().parents[3] / "shared")
FLAN = SHARED / "models" / "flan-t5-small-tokenizer"
TITLES = {"ml-100k": 1682, "steam": 6917, "steam-llara": 3581, "beauty": 12101}
TITLES |= {"office-products": 3317}
ABSENT = "not beside the repository; DELREC_SHARED names the folder that has models/ and data/"
LONGEST = 16  # characters of the longest piece of the vocabulary

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not (FLAN / "tokenizer.json").is_file(), reason=f"Flan-T5's tokenizer: {ABSENT}"
    ),
]


@pytest.fixture(scope="module")
def flan():
    return Tokenizer(FLAN)


@pytest.fixture(scope="module", params=TITLES)
def titles(request):
    path = SHARED / "data" / request.param / f"{request.param}.item"
    if not path.is_file():
        pytest.skip(f"{request.param}: {ABSENT}")
    table = read_atomic_table(path).frame
    found = table["movie_title" if "movie_title" in table.columns else "title"].to_list()
    assert len(found) == TITLES[request.param]
    return found


def test_every_title_has_the_ids_of_transformers(flan, titles):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(FLAN))(titles)["input_ids"]
    assert [[*ids, END_TOKEN] for ids in flan.encode_many(titles)] == theirs


def test_every_title_has_the_ids_of_the_file_as_it_stands(flan, titles):
    # `transformers` 5 takes the vocabulary out of the file and builds the rest anew.
    theirs = Backend.from_file(str(FLAN / "tokenizer.json"))
    encoded = theirs.encode_batch(titles, add_special_tokens=False)
    assert flan.encode_many(titles) == [one.ids for one in encoded]


@pytest.fixture(scope="module")
def likeliest():
    """word -> ids of its likeliest segmentation: a unigram language model by hand (Kudo, 2018)."""
    rows = json.loads((FLAN / "tokenizer.json").read_text())["model"]["vocab"]
    pieces = {piece: (score, id) for id, (piece, score) in enumerate(rows)}
    unknown = min(score for score, _ in pieces.values()) - 10
    assert max(map(len, list(pieces)[3:32000])) == LONGEST

    def segment(word):
        best = [(0.0, [])] + [(-float("inf"), [])] * len(word)
        for start in range(len(word)):
            score, ids = best[start]
            for end in range(start + 1, min(start + LONGEST, len(word)) + 1):
                default = (unknown, UNK) if end == start + 1 else (-float("inf"), UNK)
                more, id = pieces.get(word[start:end], default)
                if score + more > best[end][0]:
                    fused = id == UNK and ids[-1:] == [UNK]
                    best[end] = (score + more, ids if fused else [*ids, id])
        return best[-1][1]

    return segment


def test_every_title_is_cut_into_its_likeliest_pieces(flan, titles, likeliest):
    words = sorted({word for title in titles for word in title.split()})
    normal = [unicodedata.normalize("NFKC", word).split() for word in words]
    by_hand = [[id for part in parts for id in likeliest("▁" + part)] for parts in normal]
    assert flan.encode_many(words) == by_hand


def test_no_title_has_the_name_of_a_special_token(titles):
    # It would be read as the token itself: a title with <extra_id_0> would be a second MASK.
    marks = ("<pad>", "</s>", "<unk>", "<extra_id_")
    assert not any(mark in title for title in titles for mark in marks)


def test_sentinels_in_a_text_are_those_of_t5s_own_example(flan):
    # The documentation of T5 in `transformers`: no lone "▁" stands before a sentinel.
    text = "The <extra_id_0> walks in <extra_id_1> park"
    assert flan.encode(text) == [37, 32099, 10681, 16, 32098, 2447]


@pytest.mark.parametrize("text", ["Casino . Then : Heat ; Dune", "Is it so ? No , it is n't !"])
def test_decoding_keeps_the_space_before_punctuation(flan, text):
    assert flan.decode(flan.encode(text)) == text


def test_the_table_of_the_model_is_longer_than_the_tokenizer(flan):
    config = json.loads((FLAN / "config.json").read_text())
    assert (flan.vocab_size, config["vocab_size"]) == (32100, 32128)
