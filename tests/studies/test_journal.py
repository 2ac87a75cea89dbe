"""A study's journal and a search's, damaged: what is whole is kept, and a line of a search that is none is named."""

import json

import pytest

from delrec_jax.errors import UserError
from delrec_jax.studies import journal
from delrec_jax.studies.trials import Trials

ROW = {"stage": "teach", "seconds": 2.5}


def test_a_torn_line_is_passed_over_and_the_next_one_is_a_line_of_its_own(tmp_path):
    journal.note(tmp_path, **ROW)
    with (tmp_path / journal.NAME).open("a") as file:
        file.write('{"stage": "tu')
    assert journal.read(tmp_path) == [ROW]
    journal.note(tmp_path, **ROW)
    assert journal.read(tmp_path) == [ROW, ROW]


def test_stages_of_other_code_are_named():
    now = {"commit": "a" * 40, "dirty": False}
    own, edited = {**ROW, **now}, {**ROW, **now, "dirty": True}
    other = {**ROW, "commit": "b" * 40, "dirty": False}
    assert journal.other_code([], now) == journal.other_code([own, own], now) == []
    assert journal.other_code([own, other, other], now) == ["b" * 10]
    assert journal.other_code([edited], now | {"dirty": True}) == ["a" * 10 + ", changed"]
    assert journal.other_code([ROW], now) == ["unknown"]


@pytest.mark.parametrize(
    "line", ["null", "{}", "[]", "7", '{"stage": "teach"}', '{"stage": 1, "seconds": 2}', "garbage"]
)
def test_a_line_that_note_did_not_write_ends_no_study(tmp_path, line):
    """Two machines may write at one place of a network's file system: what is left of a line is none."""
    whole = json.dumps(ROW)
    for there in (line, whole[5:], line.encode() + b"\xff"):
        text = there if isinstance(there, bytes) else there.encode()
        (tmp_path / journal.NAME).write_bytes(f"{whole}\n\n".encode() + text + b"\n")
        assert journal.read(tmp_path) == [ROW]


@pytest.mark.parametrize("line", [b"garbage", b"[]", b"\xff\xfe", b"{}"])
def test_a_damaged_line_of_a_search_is_told(tmp_path, line):
    path = tmp_path / "search.log"
    Trials(path, (), seed=0)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(UserError, match=r"search.log: damaged .*put back a copy"):
        Trials(path, (), seed=0)


def test_what_is_whole_of_a_search_stays_when_its_last_line_is_torn(tmp_path):
    path = tmp_path / "search.log"
    Trials(path, (), seed=0)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 1')
    Trials(path, (), seed=0)
    assert (
        path.read_bytes().startswith(whole)
        and b'{"op_code": 1' not in path.read_bytes()[len(whole) : len(whole) + 13]
    )
