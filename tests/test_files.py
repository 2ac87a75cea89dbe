import hashlib
import os

import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.files import file_hash, read_object, whole, write_text


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_has_its_name_only_when_the_block_has_ended(tmp_path):
    path = tmp_path / "new" / "folders" / "a.txt"
    with whole(path) as partial:
        partial.write_text("first half, ")
        assert partial.parent == path.parent and not path.exists()
        with partial.open("a") as file:
            file.write("second half")
    assert path.read_text() == "first half, second half"
    assert names(path.parent) == ["a.txt"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, Killed])
@pytest.mark.parametrize("written", [True, False])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path, error, written):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(error), whole(path) as partial:
        if written:
            partial.write_text("ne")
        raise error("in the middle")
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError), whole(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_name_that_cannot_be_taken_leaves_nothing(tmp_path):
    (tmp_path / "a" / "in it").mkdir(parents=True)
    with pytest.raises(OSError):
        write_text(tmp_path / "a", "a file where a directory is")
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["in it"]


def make(directory, fail=False):
    with whole(directory) as partial:
        (partial / "inside").mkdir(parents=True)
        (partial / "inside" / "b.txt").write_text("b")
        if fail:
            raise ValueError


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError):
        make(tmp_path / "d", fail=True)
    assert names(tmp_path) == []
    (tmp_path / "empty").mkdir()
    for name in ("d", "empty"):
        make(tmp_path / name)
        assert (tmp_path / name / "inside" / "b.txt").read_text() == "b"
    with pytest.raises(OSError):  # never over what is there
        make(tmp_path / "d")
    assert names(tmp_path) == ["d", "empty"]


def test_two_processes_write_under_different_names(tmp_path, monkeypatch):
    with whole(tmp_path / "a") as mine:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with whole(tmp_path / "a") as theirs:
            mine.write_text("mine")
            theirs.write_text("theirs")
        assert (tmp_path / "a").read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "mine" and names(tmp_path) == ["a"]


def test_text_is_utf_8_wherever_it_is_written(tmp_path):
    write_text(tmp_path / "a.txt", "größer\n")
    assert (tmp_path / "a.txt").read_bytes() == b"gr\xc3\xb6\xc3\x9fer\n"


@pytest.mark.parametrize("size", [0, 1, 1 << 18, (1 << 18) + 1, 3 << 18])  # around one buffer
def test_a_file_is_known_by_its_sha_256(tmp_path, size):
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(b"more")
    assert file_hash(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    together = hashlib.sha256(content + b"more").hexdigest()
    assert file_hash(tmp_path / "a", tmp_path / "b") == together


def test_no_file_has_the_hash_of_nothing(tmp_path):
    assert file_hash() == hashlib.sha256().hexdigest()
    with pytest.raises(FileNotFoundError, match="missing"):
        file_hash(tmp_path / "missing")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "not there: look elsewhere"),
        (b"{", "cannot be read as JSON (Expecting property name"),
        (b"\x80\x04K\x01.", "cannot be read as JSON ("),  # a pickle
        (b'"\xff"', "cannot be read as JSON ('utf-8' codec"),
        (b"[" * 200_000, "cannot be read as JSON ("),
        (b"[]", "holds no JSON object; write it again"),
        (b'{"a": 1, "b": 2}', "16 bytes, and at most 15 are read; write it again"),
    ],
)
def test_what_holds_no_object_is_told_in_one_line(tmp_path, monkeypatch, content, told):
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content)
    if "at most" in told:
        monkeypatch.setattr("delrec_jax.files._LARGEST_OBJECT", 15)
    with pytest.raises(UserError) as caught:
        read_object(file, missing="look elsewhere", remedy="write it again")
    assert str(caught.value).startswith(f"{file}: {told}") and "\n" not in str(caught.value)
    file.write_text('{"a": "\\u00e9"}')
    assert read_object(file, missing="", remedy="") == {"a": "\u00e9"}
