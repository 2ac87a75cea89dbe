"""Prompts assembled from pieces against the tokenisation of the whole text, with Flan-T5's true tokenizer.

Texts of 400 users of every data set at hand, a quarter of them in each domain. `pytest -s` prints the counts that
docs/tokenizer.md reports; no row of the data leaves the test. DELREC_SHARED names the folder of the data, else it is
looked for beside the repository.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from prompt_templates import EVERY, TASKS
from transformers import AutoTokenizer

from delrec_jax.data import prompts, templates
from delrec_jax.data.corpora.atomic import AtomicSettings, read_atomic
from delrec_jax.data.corpora.tables import RulesConfig
from delrec_jax.data.prompts import PromptConfig
from delrec_jax.data.sequential_recommendation import lsr_ids
from delrec_jax.data.templates import Field
from delrec_jax.delrec.pattern_simulating import rps_text
from delrec_jax.delrec.temporal_analysis import ta_text
from delrec_jax.language.tokenizer import UNK, Tokenizer
from delrec_jax.p2rec.preference_text import preference_text

SHARED = Path(os.environ.get("DELREC_SHARED") or Path(__file__).resolve().parents[3] / "shared")
FLAN = SHARED / "models" / "flan-t5-small-tokenizer"
ABSENT = "not beside the repository; DELREC_SHARED names the folder that has models/ and data/"
CORPORA = ("ml-100k", "steam", "steam-llara", "beauty", "office-products")
USERS, LONGEST, CANDIDATES = 400, 12, 20
PLAIN = PromptConfig(max_tokens=4096)  # nothing is cut off: the text is always that of all items
LISTS = replace(PLAIN, show_candidates=True, show_ranks=True)
REFERENCE = replace(LISTS, pattern_first=True, end_of_text=True)
SLOTS = np.arange(32128, 32138, dtype=np.int32)  # behind the table of the model
WORDS = "what is popular , or goes on with a series"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not (FLAN / "tokenizer.json").is_file(), reason=f"Flan-T5's tokenizer: {ABSENT}"
    ),
]


@dataclass(frozen=True)
class Case:
    """One text of one user, as items."""

    task: str
    domain: str
    history: list[int]
    candidates: list[int]

    @property
    def ranked(self):
        return self.candidates[:4]


@dataclass(frozen=True)
class Shop:
    """A data set's titles, and a case of each task for each of its users."""

    name: str
    titles: tuple[str, ...]
    cases: list[Case]


@pytest.fixture(scope="module")
def flan():
    return Tokenizer(FLAN)


@pytest.fixture(scope="module", params=CORPORA)
def shop(request):
    folder = SHARED / "data" / request.param
    if not folder.is_dir():
        pytest.skip(f"{request.param}: {ABSENT}")
    corpus = read_atomic(AtomicSettings(str(folder), RulesConfig(min_length=7, max_users=USERS)))
    histories = [
        corpus.interactions.history(user)[-LONGEST:].tolist()
        for user in range(len(corpus.interactions.user_ids))
    ]
    rng = np.random.default_rng(0)
    cases = [
        Case(task, domain, history, rng.choice(corpus.catalogue.num_items, CANDIDATES).tolist())
        for history, domain in zip(histories, list(templates.DOMAINS) * USERS, strict=False)
        for task in TASKS
    ]
    return Shop(request.param, corpus.catalogue.titles, cases)


def pieces_of(flan, shop, domain, config, codes=()):
    return prompts.tokenise_pieces(
        flan.encode_many,
        shop.titles,
        EVERY,
        domain=domain,
        teacher="SASRec",
        sentinel=flan.sentinel(0),
        codes=codes,
        end=[1] * config.end_of_text,
        config=config,
    )


def assembled(flan, shop, config, *, pattern, codes=()):
    """Ids of every case, put together from pieces."""
    pieces = {domain: pieces_of(flan, shop, domain, config, codes) for domain in templates.DOMAINS}
    build = {
        "ta": ta_text,
        "rps": rps_text,
        "lsr": lsr_ids,
    }
    return [
        build[case.task](
            pieces[case.domain],
            case.history,
            pattern=np.array(pattern, np.int32),
            candidates=case.candidates,
            **({"ranked": case.ranked} if case.task == "rps" else {}),
        ).tolist()
        for case in shop.cases
    ]


def written(shop, case, config, *, pattern, codes=()):
    """The same text as a person would write it down."""

    def listed(items):
        return " ; ".join(shop.titles[item] for item in items)

    names = [f"{code} " for code in codes] or [""] * CANDIDATES
    named = [name + shop.titles[item] for name, item in zip(names, case.candidates, strict=True)]
    history = case.history[3:-2] if case.task == "ta" else case.history
    fields = {
        Field.EARLIER: listed(case.history[:2]),
        Field.GAP_EARLIER: listed(case.history[2:3]),
        Field.AFTER_EARLIER: listed(case.history[3:4]),
        Field.AFTER: listed(case.history[-1:]),
        Field.HISTORY: listed(history),
        Field.PATTERN: pattern,
        Field.CANDIDATES: " ; ".join(named) if config.show_candidates or codes else "",
        Field.RANKED: listed(case.ranked) if config.show_ranks else "",
        Field.MASK: "<extra_id_0>",
    }
    parts = templates.without(
        TASKS[case.task], {field for field, text in fields.items() if not text}
    )
    if config.pattern_first:
        parts = templates.pattern_first(parts)
    words = templates.domain(case.domain)
    return " ".join(
        fields[part] if isinstance(part, Field) else templates.fill(part, words, "SASRec")
        for part in parts
    )


def differing(found, expected):
    return [index for index, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]


@pytest.mark.parametrize("config", [PLAIN, LISTS], ids=["plain", "lists"])
def test_pieces_are_the_tokens_of_the_whole_text(flan, shop, config):
    texts = [written(shop, case, config, pattern=WORDS) for case in shop.cases]
    found = assembled(flan, shop, config, pattern=flan.encode(WORDS))
    wrong = differing(found, flan.encode_many(texts))
    print(f"\n{shop.name}: {len(wrong)} of {len(texts)} texts are not those of the whole")
    assert len(texts) == 3 * USERS and not wrong


def test_texts_in_the_order_of_the_reference_are_what_transformers_makes_of_them(flan, shop):
    theirs = AutoTokenizer.from_pretrained(str(FLAN))
    texts = [written(shop, case, REFERENCE, pattern=WORDS) for case in shop.cases]
    assert {text.partition(" ")[0] for text in texts} == {"Refer", "The"}
    found = assembled(flan, shop, REFERENCE, pattern=flan.encode(WORDS))
    assert not differing(found, theirs(texts)["input_ids"])


def test_preferences_are_the_tokens_of_the_whole_text(flan, shop):
    pieces = {domain: pieces_of(flan, shop, domain, PLAIN) for domain in templates.DOMAINS}
    texts, found = [], []
    for case in shop.cases[:: len(TASKS)]:
        words = templates.domain(case.domain)
        listed = " ; ".join(shop.titles[item] for item in case.history)
        opening = f"The user has {words.past} these {words.plural} in order :"
        texts.append(f"{opening} {listed} . The pattern of the user is :")
        found.append(preference_text(pieces[case.domain], case.history).ids.tolist())
    assert len(texts) == USERS and not differing(found, flan.encode_many(texts))


def test_pieces_with_codes_and_no_pattern_are_the_tokens_of_the_whole_text(flan, shop):
    codes = flan.codes(CANDIDATES)
    names = [flan.decode([code]) for code in codes]
    texts = [written(shop, case, PLAIN, pattern="", codes=names) for case in shop.cases]
    found = assembled(flan, shop, PLAIN, pattern=[], codes=codes)
    assert not differing(found, flan.encode_many(texts))


def test_soft_slots_cut_the_text_at_a_word_and_change_nothing_beside_them(flan, shop):
    texts = [written(shop, case, PLAIN, pattern="SLOTS").split(" SLOTS ") for case in shop.cases]
    before = flan.encode_many([text for text, _ in texts])
    after = flan.encode_many([text for _, text in texts])
    found = assembled(flan, shop, PLAIN, pattern=SLOTS)
    expected = [a + SLOTS.tolist() + b for a, b in zip(before, after, strict=True)]
    assert not differing(found, expected)


# Texts of 1,200, as measured. The decoder cannot write "▁<unk>" otherwise than " <unk>", and the tokenizer reads that
# without the "▁"; after "<unk>" it begins a new word.
UNKNOWN = {"ml-100k": 19, "steam": 176, "steam-llara": 238, "beauty": 270, "office-products": 0}


def test_decoded_texts_have_the_same_ids_but_for_unknown_characters(flan, shop):
    found = assembled(flan, shop, LISTS, pattern=flan.encode(WORDS))
    wrong = differing(found, flan.encode_many([flan.decode(ids) for ids in found]))
    unknown = sum(UNK in ids for ids in found)
    print(f"\n{shop.name}: {len(wrong)} texts change when decoded, {unknown} have unknowns")
    assert all(UNK in found[index] for index in wrong)
    assert len(wrong) == UNKNOWN[shop.name]


# Titles, as measured, that a cut to 12 tokens ends inside a word whose rest is other tokens when read alone.
CUT = {"ml-100k": 4, "steam": 9, "steam-llara": 7, "beauty": 167, "office-products": 67}


def test_a_cut_title_changes_in_its_last_word_alone(flan, shop):
    config = replace(PLAIN, max_title_tokens=12)
    cut = [ids.tolist() for ids in pieces_of(flan, shop, "items", config).titles]
    again = flan.encode_many([flan.decode(ids) for ids in cut])
    wrong = [index for index in differing(cut, again) if UNK not in cut[index]]
    print(f"\n{shop.name}: {len(wrong)} of {len(cut)} titles end inside a word when cut")
    for index in wrong:
        words = flan.decode(cut[index]).split(" ")
        head = flan.encode(" ".join(words[:-1]))
        assert (
            len(cut[index]) == 12 and cut[index][: len(head)] == head == again[index][: len(head)]
        )
    assert len(wrong) == CUT[shop.name] and max(map(len, cut)) == 12
