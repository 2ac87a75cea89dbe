import ast
import time

import pytest
from corpus_files import python2_repr
from hypothesis import given
from hypothesis import strategies as st

from delrec_jax.data.corpora import python_literals
from delrec_jax.data.corpora.python_literals import field_reader

WANTED = ("id", "title", "tags")
read = field_reader(WANTED)

SCALARS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["u'id': u'7'", "it's", 'say "it\'s"', "\\", "\\'", "', 'id': 'x", "\ud83d"]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
KEYS = st.sampled_from([*WANTED, "price", "ids", "idx", "a key", "it's"])
RECORDS = st.dictionaries(KEYS, VALUES, max_size=5)


def slow(text):
    """What the reader must agree with; None where it must raise."""
    try:
        record = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return (
        {name: record[name] for name in WANTED if name in record} if type(record) is dict else None
    )


def fast(text):
    try:
        return read(text)
    except ValueError:
        return None


@given(record=RECORDS, write=st.sampled_from([repr, ascii, python2_repr]))
def test_every_dict_reads_as_literal_eval_reads_it(record, write):
    assert repr(fast(write(record))) == repr(slow(write(record)))


@given(record=RECORDS, place=st.floats(0, 1), piece=st.sampled_from(list("'\"\\,:{}[]u1e.-\0\r ")))
def test_a_damaged_dict_reads_as_literal_eval_reads_it(record, place, piece):
    text = python2_repr(record)
    position = int(place * len(text))
    for damaged in (
        text[:position] + piece + text[position:],
        text[:position] + piece + text[position + 1 :],
        text[:position] + text[position + 1 :],
        text[:position],
    ):
        assert repr(fast(damaged)) == repr(slow(damaged)), damaged


def test_common_lines_take_the_fast_way(monkeypatch):
    monkeypatch.setattr(python_literals, "_evaluate", pytest.fail)
    line = (
        r"{u'text': u'it\'s u\xe9', 'q': u\"u'id': u'8'\", u'n': -0.5, u'e': 1e-05, u'b': False, "
        r"u'tags': [u'a', {'k': None}], u'id': u'7', u'title': u'\u2122'}"
    ).replace(r"\"", '"')
    assert read(line) == {"id": "7", "title": "™", "tags": ["a", {"k": None}]}
    assert read("{'id': '1', 'id': '2'}") == {"id": "2"}


def test_nothing_is_run(tmp_path):
    target = tmp_path / "made"
    for code in (f"open({str(target)!r}, 'w')", f"{{'id': open({str(target)!r}, 'w')}}"):
        with pytest.raises(ValueError, match="not a Python literal"):
            read(code)
    assert not target.exists()


@pytest.mark.parametrize("text", ["['id']", "'id'", "7", "", "{'id'}"])
def test_what_is_no_dict_is_refused(text):
    with pytest.raises(ValueError, match="not a"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "{'n': 007, 'id': '1'}",
        r"{'text': '\x4', 'id': '1'}",
        "{'n': 1" + "1" * 5000 + ", 'id': '1'}",
    ],
)
def test_what_literal_eval_refuses_is_refused_in_fields_nobody_wants(text):
    assert slow(text) is None and fast(text) is None
    assert fast(text.replace("'n'", "'id'")) is None


def test_hostile_lines_cost_no_more_than_their_length():
    started = time.process_time()
    for text in ("{u'a': u'" + "\\\\" * 50_000, "{'a': " + "[" * 5000, "{" + "'a': 1, " * 20_000):
        assert fast(text) is None
    # It takes milliseconds; an expression that backtracks would take forever.
    assert time.process_time() - started < 60
