"""A tokenizer's directory is data: no code of it is run, and what cannot be read is told in one line."""

import json

import pytest

from delrec_jax.errors import UserError
from delrec_jax.language.tokenizer import Tokenizer, train_tokenizer

CODE = "raise SystemExit('the code of the directory was run')"


@pytest.fixture
def directory(tmp_path):
    texts = ["a small text of few words", "another text"]
    train_tokenizer(texts, texts, vocab_size=60, sentinels=4, directory=tmp_path)
    return tmp_path


def refusal(directory):
    with pytest.raises(UserError) as caught:
        Tokenizer(directory)
    message = str(caught.value)
    assert message.startswith(str(directory)) and "\n" not in message
    assert "lm.tokenizer" in message
    return message


def changed(directory, **values):
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_code_of_the_directory_is_not_run_and_nobody_is_asked(directory, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (directory / "own.py").write_text(CODE)
    changed(directory, tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]})
    assert "no tokenizer that can be read (The repository" in refusal(directory)


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04K\x01.", b'{"model": 1}'])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_damaged_files(directory, name, content):
    if name == "tokenizer_config.json" and content.startswith(b'{"'):
        content = b"[1]"
    (directory / name).write_bytes(content)
    refusal(directory)


def test_a_whole_one_is_read(directory):
    own = Tokenizer(directory)
    changed(directory, model_max_length=10)  # now `transformers` reads it
    assert Tokenizer(directory).encode("a small text") == own.encode("a small text")
