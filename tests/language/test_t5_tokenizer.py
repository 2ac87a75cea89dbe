"""Tokenizers: T5's conventions, pieces against wholes, codes; Flan-T5's own where at hand."""

import json
import os
from pathlib import Path

import pytest

from delrec_jax.errors import UserError
from delrec_jax.language.tokenizer import CODE_NAMES, UNK, Tokenizer, train_tokenizer
from delrec_jax.language.tokenizer_backends import (
    OwnBackend,
    TransformersBackend,
    open_backend,
)
from delrec_jax.padding import END_TOKEN, PAD_TOKEN

ROOT = Path(__file__).parents[2]
FLAN = Path(os.path.relpath(ROOT.parent / "shared" / "models" / "flan-t5-small-tokenizer"))
TITLES = [
    "Harbor of Glass",
    "The Quiet Harbor: Part 2",
    "Glass Moon, Paper Sun (1994)",
    "A Letter to the Moon",
    "Sun & Sand",
]
WORDS = [
    "The user watched these films in this order:",
    "Which of the following will be watched next?",
    "Answer: A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
]
SENTINELS = 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_tokenizer(
        TITLES + WORDS,
        TITLES,
        vocab_size=200,
        sentinels=SENTINELS,
        directory=tmp_path_factory.mktemp("tokenizer") / "new" / "folder",
    )


@pytest.fixture(scope="module")
def flan():
    if not (FLAN / "tokenizer.json").is_file():
        print(reason := f"{FLAN}: Flan-T5's tokenizer is not there")
        pytest.skip(reason)
    return Tokenizer(FLAN)


@pytest.fixture(params=["trained", pytest.param("flan", marks=pytest.mark.real_data)])
def either_tokenizer(request):
    return request.getfixturevalue(request.param)


def test_a_vocabulary_without_room_for_letters_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"lm\.vocab_size leaves 5 ids for words, and no tokenizer"):
        train_tokenizer(TITLES, TITLES, vocab_size=9, sentinels=4, directory=tmp_path)


def test_conventions(either_tokenizer):
    tokenizer = either_tokenizer
    assert (PAD_TOKEN, END_TOKEN, UNK) == (0, 1, 2)
    assert tokenizer.decode([0, 1, 2]).replace(" ", "") == "<pad></s><unk>"
    assert tokenizer.sentinel(0) == tokenizer.vocab_size - 1
    assert tokenizer.sentinel(1) == tokenizer.vocab_size - 2
    assert tokenizer.encode("<extra_id_1>") == [tokenizer.sentinel(1)]
    assert tokenizer.decode([tokenizer.sentinel(3)]) == "<extra_id_3>"


@pytest.mark.real_data
def test_flan_numbers(flan):
    assert flan.vocab_size == 32100
    assert flan.sentinel(0) == 32099
    assert flan.sentinel(99) == 32000
    assert flan.encode("translate English to German: That is good.") == [
        13959, 1566, 12, 2968, 10, 466, 19, 207, 5,
    ]  # fmt: skip


def test_training_keeps_to_the_size_and_the_sentinels(trained):
    assert trained.vocab_size <= 200
    sentinels = [trained.sentinel(i) for i in range(SENTINELS)]
    assert sentinels == list(range(trained.vocab_size - 1, trained.vocab_size - 1 - SENTINELS, -1))
    with pytest.raises(UserError, match=r"no <extra_id_6>.*more questions"):
        trained.sentinel(SENTINELS)


@pytest.mark.real_data
def test_flan_has_a_hundred_sentinels(flan):
    with pytest.raises(UserError, match="no <extra_id_100>"):
        flan.sentinel(100)


@pytest.mark.parametrize("text", TITLES + WORDS)
def test_text_survives_and_has_no_unknown(either_tokenizer, text):
    ids = either_tokenizer.encode(text)
    assert UNK not in ids
    assert END_TOKEN not in ids
    assert either_tokenizer.decode(ids) == text


def test_characters_never_seen_are_unknown_and_not_lost(trained):
    assert UNK in trained.encode("Harbor 犬")


def test_punctuation_does_not_make_words_of_its_own(trained):
    word = trained.encode("Harbor")
    assert trained.encode("Harbor:")[: len(word)] == word
    assert trained.encode("Harbor,")[: len(word)] == word


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_pieces_at_word_boundaries_concatenate_to_the_whole(either_tokenizer, cut):
    words = " ".join(WORDS[:2] + TITLES).split(" ")
    pieces = [" ".join(words[i : i + cut]) for i in range(0, len(words), cut)]
    joined = [i for piece in pieces for i in either_tokenizer.encode(piece)]
    assert joined == either_tokenizer.encode(" ".join(words))


def test_many_at_once_are_each_alone(either_tokenizer):
    assert either_tokenizer.encode_many(TITLES) == [either_tokenizer.encode(t) for t in TITLES]
    assert either_tokenizer.encode_many([]) == []


def test_codes_are_different_single_tokens(either_tokenizer):
    codes = either_tokenizer.codes(20)
    assert len(set(codes)) == 20
    assert [either_tokenizer.encode(letter) for letter in "ABC"] == [[c] for c in codes[:3]]
    assert UNK not in codes


def test_too_few_codes_is_named(trained):
    with pytest.raises(UserError, match=r"one-token codes, but 500 candidates"):
        trained.codes(500)


def test_training_is_the_same_twice(trained, tmp_path):
    again = train_tokenizer(
        TITLES + WORDS, TITLES, vocab_size=200, sentinels=SENTINELS, directory=tmp_path
    )
    assert again.encode_many(TITLES + WORDS) == trained.encode_many(TITLES + WORDS)
    assert (tmp_path / "tokenizer.json").read_bytes() == (
        Path(trained.name) / "tokenizer.json"
    ).read_bytes()


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no tokenizer.json there; point lm.tokenizer"):
        Tokenizer(tmp_path / "nowhere")


def test_a_tokenizer_of_another_kind_is_refused(trained, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(trained.name) / name).read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "</s>"}))
    with pytest.raises(UserError, match="pad is 1 and </s> is 1; a T5 tokenizer has 0 and 1"):
        Tokenizer(tmp_path)


def test_both_libraries_give_the_same_ids_of_our_own_tokenizer(trained):
    ours, theirs = OwnBackend(Path(trained.name)), TransformersBackend(Path(trained.name))
    assert isinstance(open_backend(Path(trained.name)), OwnBackend)
    texts = [
        *TITLES,
        *WORDS,
        "",
        "  two  spaces ",
        "é☃ <pad> x</s>y",
        "<extra_id_3>: a.<unk>",
        "q\n\tz",
    ]
    assert ours.encode(texts) == theirs.encode(texts)
    assert [ours.decode(ids) for ids in ours.encode(texts)] == [
        theirs.decode(ids) for ids in theirs.encode(texts)
    ]
    assert ours.size == theirs.size and ours.id_of("<extra_id_0>") == theirs.id_of("<extra_id_0>")
    for name in ("pad", "eos", "unk", "mask", "cls", "sep"):
        assert ours.special(name) == theirs.special(name)


def test_any_other_tokenizer_is_read_by_transformers(trained, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (Path(trained.name) / name).read_text()
        (tmp_path / name).write_text(text.replace('"pad_token"', '"legacy": true, "pad_token"'))
    assert isinstance(open_backend(tmp_path), TransformersBackend)
    (tmp_path / "tokenizer_config.json").unlink()
    assert isinstance(open_backend(tmp_path), TransformersBackend)


def test_a_code_of_two_tokens_or_none_is_passed_over():
    ids = {"A": [5], "B": [5, 6], "C": [UNK], "D": [5], "E": [7], "1": [8]}

    class Stub:
        def encode(self, texts):
            return [ids.get(text, [3, 4]) for text in texts]

    tokenizer = object.__new__(Tokenizer)
    tokenizer._backend, tokenizer._unknown, tokenizer.name = Stub(), UNK, "stub"
    assert tokenizer.codes(3) == [5, 7, 8]
    with pytest.raises(UserError, match="only 3 one-token codes, but 4"):
        tokenizer.codes(4)
    assert CODE_NAMES[25:28] == ["Z", "1", "2"] and CODE_NAMES[-1] == "999"
