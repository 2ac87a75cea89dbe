import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.data.corpora import builder
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder, read_corpus
from delrec_jax.data.interactions import Catalogue, Corpus, fingerprint, from_rows
from delrec_jax.errors import UserError


class InMemoryCorpus(SequenceCorpusBuilder[Corpus]):
    """Its settings are the corpus."""

    def parse(self):
        return self.settings


class FaultyCorpus(SequenceCorpusBuilder[None]):
    def parse(self):
        raise UserError("shop.inter, line 7: torn")


def make_corpus(lengths, num_items, *, attributes=True, ordered_only=False):
    rng = np.random.default_rng(num_items)
    catalogue = Catalogue(
        ids=tuple(f"i{n}\0\u00e9\n" for n in range(num_items)),
        titles=tuple(f"\u4e2d {n} \U0001f600" for n in range(num_items)),
        attributes={"brand": ("", *("x" * n for n in range(1, num_items)))} if attributes else {},
    )
    interactions = from_rows(
        [f'u"{n}' for n in range(len(lengths))],
        [rng.integers(0, num_items, n) for n in lengths],
        [np.sort(rng.integers(-(2**62), 2**62, n)) for n in lengths],
    )
    return Corpus("shop", catalogue, interactions, {"lines: odd": 2}, ordered_only)


def stored(corpus, folder):
    made = InMemoryCorpus(settings=corpus, data_dir=folder)
    made.prepare()
    return read_corpus(made)


def assert_same(found, corpus):
    assert found.name == corpus.name
    assert found.catalogue == corpus.catalogue
    assert found.dropped == corpus.dropped
    assert found.ordered_only is corpus.ordered_only
    for name in ("offsets", "items", "times"):
        mine, theirs = getattr(found.interactions, name), getattr(corpus.interactions, name)
        assert mine.dtype == theirs.dtype and mine.flags.writeable
        assert mine.tolist() == theirs.tolist()
    assert found.interactions.user_ids == corpus.interactions.user_ids
    assert fingerprint(found) == fingerprint(corpus)


@settings(max_examples=12)
@given(
    st.lists(st.integers(0, 4), max_size=9),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
)
def test_a_corpus_comes_back_as_it_was(
    tmp_path_factory, lengths, num_items, attributes, ordered_only, block
):
    corpus = make_corpus(lengths, num_items, attributes=attributes, ordered_only=ordered_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "BLOCK", block)
        assert_same(stored(corpus, tmp_path_factory.mktemp("corpus")), corpus)


def test_an_empty_corpus_comes_back(tmp_path):
    empty = Corpus("none", Catalogue((), (), {"year": ()}), from_rows([], [], []), {})
    assert_same(stored(empty, tmp_path), empty)


def test_thousands_of_users_are_few_records_and_need_no_tensorflow(tmp_path):
    corpus = make_corpus([3] * 9000, 50)
    made = InMemoryCorpus(settings=corpus, data_dir=tmp_path)
    made.prepare()
    assert made.info.splits["histories"].num_examples == 3
    assert made.info.splits["catalogue"].num_examples == 1
    assert_same(read_corpus(made), corpus)
    assert "tensorflow" not in sys.modules


def test_what_is_prepared_is_not_parsed_again(tmp_path):
    corpus = make_corpus([3, 2], 4)
    stored(corpus, tmp_path)
    assert_same(stored(make_corpus([9], 2), tmp_path), corpus)


def test_a_fault_of_the_source_leaves_nothing_behind(tmp_path, capsys):
    made = FaultyCorpus(settings=None, data_dir=tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match="line 7"):
            made.prepare()
    assert not list(tmp_path.rglob("*.array_record*"))
    assert capsys.readouterr().out == ""
