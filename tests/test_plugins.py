"""Parts by name: ours, a file's, a module's; what is wrong is said with the key."""

import hashlib

import pytest

from delrec_jax.errors import UserError
from delrec_jax.plugins import find, source_hash

KNOWN = {"mean": 1, "first": 2}


def test_ours_by_name():
    assert find("first", KNOWN, key="lm.verbalizer") == 2


def test_a_files_part_is_loaded_once(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("PART = object()\n")
    found = find(f"{path}:PART", KNOWN, key="lm.verbalizer")
    assert find(f"{path}:PART", KNOWN, key="lm.verbalizer") is found


def test_what_lacks_an_attribute_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Part:\n    fit = None\n\n\nPART = Part()\n")
    assert find(f"{path}:PART", {}, key="teacher.name", needs=("fit",))
    with pytest.raises(UserError, match=r"teacher\.name is .*PART', which lacks title, max_length"):
        find(f"{path}:PART", {}, key="teacher.name", needs=("title", "fit", "max_length"))


def test_a_modules_part():
    assert find("math:pi", {}, key="x") == pytest.approx(3.14159, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mien", None, "lm.verbalizer is 'mien': use one of mean, first, or FILE.py:NAME"),
        ("{path}:Part", None, "there is no file"),
        ("{path}:Part", "x = 1", "has no 'Part'"),
        ("{path}:Part", "x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("{path}:Part", "class Part: pass", "a class: name an instance of it"),
        ("no.such.module:Part", None, "ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_said_with_the_key(tmp_path, name, text, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"lm\.verbalizer is ") as error:
        find(name.format(path=path), KNOWN, key="lm.verbalizer")
    assert message in str(error.value)


def test_a_file_that_failed_can_be_mended(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("x = 1 / 0")
    with pytest.raises(UserError):
        find(f"{path}:x", {}, key="k")
    path.write_text("x = 7")
    assert find(f"{path}:x", {}, key="k") == 7


def test_the_hash_is_of_what_was_loaded(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("x = 1")
    before = source_hash(f"{path}:x")
    path.write_text("x = 2")
    assert before == source_hash(f"{path}:x") == hashlib.sha256(b"x = 1").hexdigest()
    assert source_hash("mean") == source_hash("math:pi") == source_hash("3:7") == ""
    with pytest.raises(UserError, match=r"there is no file .*other\.py \(working directory"):
        source_hash(f"{tmp_path / 'other.py'}:x")
