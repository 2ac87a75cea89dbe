"""Texts of a part's users are made as they are asked for, and padded alike where all are short."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_templates import EVERY

from delrec_jax.data import prompts
from delrec_jax.data.evaluation_batches import ALIKE
from delrec_jax.data.interactions import from_rows
from delrec_jax.data.read_texts import with_title_slots
from delrec_jax.data.sequential_recommendation import lsr_lengths, lsr_text
from delrec_jax.data.split_kinds import leave_one_out
from delrec_jax.workdir import language_scorer
from delrec_jax.workdir.language_scorer import (
    CatalogueSystem,
    LanguageScorer,
    LanguageSystem,
    RowTexts,
)

ITEMS, USERS = 40, 30
SLOTS = np.array([997, 998], np.int32)


def pieces_of(title_tokens=9, *, codes=(), **settings):
    lengths = np.random.default_rng(0).integers(1, title_tokens + 1, ITEMS)
    titles = {f"title {item}": [1000 + item] * length for item, length in enumerate(lengths)}
    return prompts.tokenise_pieces(
        lambda texts: [titles.get(text, [1, 2]) for text in texts],
        list(titles),
        EVERY,
        domain="items",
        teacher="SASRec",
        sentinel=999,
        codes=codes,
        config=prompts.PromptConfig(**settings),
    )


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(1)
    rows = [rng.permutation(ITEMS)[: rng.integers(4, ITEMS)] for _ in range(USERS)]
    names = [f"u{user}" for user in range(USERS)]
    times = [np.arange(len(row)) for row in rows]
    return leave_one_out(from_rows(names, rows, times))


class Scorer(LanguageScorer):
    """Counts nothing but what it reads; its scores say nothing."""

    def __init__(self, pieces):
        self.language = SimpleNamespace(pieces=pieces)
        self.buckets = language_scorer.make_buckets(pieces.config.max_tokens)
        self.read = []

    def catalogue(self, system, texts):
        self.read.append(texts.ids)
        return np.zeros((len(texts.ids), ITEMS), np.float32)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 100),
    room=st.integers(60, 200),
    shown=st.integers(1, 12),
    listing=st.sampled_from(["nothing", "titles", "codes"]),
    slots=st.sampled_from(["none", "soft", "titles"]),
)
def test_lengths_are_those_of_the_texts(seed, room, shown, listing, slots):
    rng = np.random.default_rng(seed)
    codes = tuple(range(500, 503)) if listing == "codes" else ()
    pieces = pieces_of(
        codes=codes,
        max_tokens=room,
        max_history=shown,
        show_candidates=listing != "nothing",
        cut_to_fit=True,
    )
    own = np.arange(2000, 2000 + ITEMS, dtype=np.int32)
    pieces = with_title_slots(pieces, own) if slots == "titles" else pieces
    pattern = {"none": prompts.NO_PATTERN, "soft": SLOTS, "titles": own}[slots]
    histories = [rng.integers(0, ITEMS, count) for count in rng.integers(0, 20, 8)]
    listed = None if listing == "nothing" else rng.integers(0, ITEMS, (8, 3))
    texts = [
        lsr_text(pieces, history, pattern, () if listed is None else listed[row])
        for row, history in enumerate(histories)
    ]
    found = lsr_lengths(pieces, histories, pattern, listed)
    assert found.tolist() == [len(text.ids) for text in texts]


def test_only_texts_that_are_asked_for_are_made(split, monkeypatch):
    made, make = [], language_scorer.lsr_text
    monkeypatch.setattr(
        language_scorer, "lsr_text", lambda *given: made.append(given[1]) or make(*given)
    )
    system = CatalogueSystem(Scorer(pieces_of()), LanguageSystem(SLOTS), split)
    system.scores("test", np.array([4, 2, 7]))
    system.scores("test", np.array([2, 1, 0]))
    histories = split.histories("test")
    assert [one.tolist() for one in made] == [histories[row].tolist() for row in (4, 2, 7, 2, 1, 0)]


def test_short_texts_are_padded_alike_in_the_order_of_the_rows(split):
    scorer = Scorer(pieces_of(max_tokens=256))
    texts = RowTexts(scorer, LanguageSystem(SLOTS), split, "test")
    everything = scorer.texts(LanguageSystem(SLOTS), split.histories("test"))
    buckets = {
        len(scorer.texts(LanguageSystem(SLOTS), [history]).ids[0])
        for history in split.histories("test")
    }
    assert texts.order is None and len(buckets) > 2
    for rows in ([3], [5, 0, 1], [29, 29]):
        np.testing.assert_array_equal(texts(np.array(rows)).ids, everything.rows(rows).ids)


def test_long_texts_are_padded_as_their_batch_needs_and_come_last(split):
    scorer, system = Scorer(pieces_of(30, max_tokens=2000)), LanguageSystem(SLOTS)
    texts = RowTexts(scorer, system, split, "test")
    lengths = lsr_lengths(scorer.language.pieces, split.histories("test"), SLOTS)
    assert (np.diff(lengths[texts.order]) >= 0).all()
    assert sorted(texts.order) == list(range(USERS))
    widths = []
    for start in range(0, USERS, 5):
        rows = texts.order[start : start + 5]
        found = texts(rows).ids
        everything = scorer.texts(system, split.histories("test")).rows(rows).ids
        np.testing.assert_array_equal(found, everything[:, : found.shape[1]])
        assert not everything[:, found.shape[1] :].any()
        longest = max(lengths[rows].max(), ALIKE)
        widths.append(found.shape[1])
        assert widths[-1] == language_scorer.bucket_length(longest, scorer.buckets)
    assert len(set(widths)) > 2 and widths[0] == ALIKE


def test_long_texts_of_one_bucket_are_ranked_in_the_order_of_the_rows(split):
    scorer = Scorer(pieces_of(60, max_tokens=300))
    assert RowTexts(scorer, LanguageSystem(SLOTS), split, "test").order is not None
    # With at most one item, even the longest titles are short.
    few = Scorer(pieces_of(60, max_tokens=300, max_history=1))
    assert RowTexts(few, LanguageSystem(SLOTS), split, "test").order is None
