"""benchmarks/accelerator/carry.py: an encoder cut down to the words of a corpus reads that corpus as the whole one does."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bert import RAW, write_bert, write_wordpiece
from tiny_storefront import open_workspace

from delrec_jax.language import bert_files
from delrec_jax.language.bert_model import BertModel
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.workdir.prepared import load_data

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "accelerator"))
import carry


@pytest.fixture(scope="module")
def titles(tiny_run):
    return load_data(open_workspace(tiny_run)).corpus.catalogue.titles


@pytest.fixture(scope="module")
def encoder(titles, tmp_path_factory):
    """A BERT whose vocabulary has more words than the corpus."""
    folder = tmp_path_factory.mktemp("carry") / "model"
    others = [f"zebra{n} quagga{n} okapi{n}" for n in range(40)]
    size = write_wordpiece(folder, [*titles, *others] * 3, size=900)
    return write_bert(folder, RAW | {"vocab_size": size})


def states(folder, text):
    config = bert_files.read_config(folder)
    ids = np.array([Tokenizer(folder).encode(text)])
    return BertModel(config).encode(bert_files.load(folder, config), ids)[0]


def test_the_smaller_encoder_reads_titles_as_the_whole_one(
    tiny_run, titles, encoder, tmp_path, capsys
):
    out = tmp_path / "out"
    carry.main([f"--weights={encoder}", f"--out={out}", str(tiny_run)])
    assert str(out) in capsys.readouterr().out
    before, after = (Tokenizer(folder) for folder in (encoder, out))
    assert after.vocab_size < before.vocab_size - 40
    assert [after.decode(after.encode(title)) for title in titles] == [
        before.decode(before.encode(title)) for title in titles
    ]
    np.testing.assert_allclose(states(out, titles[3]), states(encoder, titles[3]), atol=0.05)
    size = (out / "model.safetensors").stat().st_size
    assert size < (encoder / "model.safetensors").stat().st_size / 2
    # The special tokens around a text are those of the new vocabulary.
    assert after.begin == (after.encode("[CLS]")[0],)
    processed = json.loads((out / "tokenizer.json").read_text())["added_tokens"]
    assert [token["id"] for token in processed] == [0, 1, 2, 3, 4]


def test_a_word_that_was_left_out_is_noticed(tiny_run, encoder, tmp_path, monkeypatch):
    honest = carry.with_vocabulary

    def careless(tokenizer, new):
        """Forgets the last word that is in use."""
        return honest(tokenizer, np.where(new == new.max(), -1, new))

    monkeypatch.setattr(carry, "with_vocabulary", careless)
    with pytest.raises(ValueError, match="other tokens in the smaller vocabulary"):
        carry.main([f"--weights={encoder}", f"--out={tmp_path / 'out'}", str(tiny_run)])
