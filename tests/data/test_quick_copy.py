"""The copy of a prepared corpus: the same corpus, without TFDS, and never a damaged one."""

import dataclasses
import shutil

import pytest
from test_builder import assert_same, make_corpus

from delrec_jax.data.corpora import DataConfig, load_corpus, prepare_corpus
from delrec_jax.data.corpora.quick_copy import FILE, load_copy, save_copy
from delrec_jax.errors import UserError

PARTS = ("train", "train", "valid", "test")


@pytest.mark.parametrize("lengths", [[], [3, 0, 2, 5]])
@pytest.mark.parametrize("parts", [None, PARTS])
def test_a_corpus_comes_back_from_its_copy(tmp_path, lengths, parts):
    corpus = make_corpus(lengths, 5, ordered_only=bool(lengths))
    corpus = dataclasses.replace(corpus, parts=parts and parts[: len(lengths)])
    save_copy(corpus, tmp_path / FILE)
    assert_same(load_copy(tmp_path / FILE), corpus)
    assert load_copy(tmp_path / FILE).parts == corpus.parts


@pytest.fixture
def prepared(tmp_path, tiny_run):
    """A folder of corpora with one in it."""
    shutil.copytree(tiny_run / "data" / "corpus", tmp_path / "corpus")
    return tmp_path / "corpus"


def test_records_without_a_copy_are_the_same_corpus(prepared):
    (copy,) = prepared.rglob(FILE)
    found = load_corpus(prepared)
    copy.unlink()
    assert_same(load_corpus(prepared), found)


def test_a_damaged_copy_is_not_read(prepared):
    (copy,) = prepared.rglob(FILE)
    content = bytearray(copy.read_bytes())
    content[content.index(b"Book One")] ^= 1
    copy.write_bytes(content)
    with pytest.raises(UserError, match=rf"{FILE}: .*delete it"):
        load_corpus(prepared)


def test_each_corpus_is_copied_when_it_is_prepared(tmp_path):
    config = dataclasses.replace(DataConfig().storefront, users=20)
    for seed in (1, 2):
        data = DataConfig(corpus="storefront", seed=seed, storefront=config)
        made = prepare_corpus(data, tmp_path)
        assert_same(load_corpus(tmp_path), made)
    assert len(list(tmp_path.rglob(FILE))) == 2
