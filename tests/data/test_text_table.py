import csv
import io
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.data.corpora.text_rows import TextFormat
from delrec_jax.data.corpora.text_table import read_text_table, shown
from delrec_jax.errors import UserError

CSV = TextFormat(",", quoted=True)
PIPES = TextFormat("|", encoding="latin-1")
COLONS = TextFormat("::", encoding="latin-1")


@pytest.mark.parametrize(
    ("content", "settings", "names", "cells"),
    [
        ('\ufeffa\t b \r\n1\t"x\r\n\t  \r\n\r\n\r\n'.encode(), {}, "ab", [("1", '"x'), ("", "  ")]),
        (
            "1|Caf\u00e9|x\n2||\n".encode("latin-1"),
            {"form": PIPES, "columns": list("abc")},
            "abc",
            [("1", "Caf\u00e9", "x"), ("2", "", "")],
        ),
        (
            "1::\u00c9t\u00e9: a|b\tc::x\r\n2::::y".encode("latin-1"),
            {"form": COLONS, "columns": list("abc")},
            "abc",
            [("1", "\u00c9t\u00e9: a|b\tc", "x"), ("2", "", "y")],
        ),
    ],
    ids=["tabs with a header", "given columns mean no header", "a separator of two characters"],
)
def test_rows_by_hand(content, settings, names, cells):
    table = read_text_table(content, name="shop", **settings)
    assert table.frame.columns == list(names) and table.frame.rows() == cells
    assert table.lines.to_list() == ([1, 2] if "columns" in settings else [2, 3])
    assert table.unfinished is not content.endswith(b"\n")


FIELDS = st.text(st.sampled_from('ab,"\n \u00e9\u4e2d'), max_size=4)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_as_the_standard_library_writes_it(table, end):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["x", "y", "z"])
    writer.writerows(table)
    content = buffer.getvalue().replace("\n", end).encode()  # inside quotes too
    found = read_text_table(content, name="s", form=CSV)
    assert found.frame.rows() == table
    line = 2
    for number, row in enumerate(table):
        assert found.lines[number] == line
        line += 1 + sum(field.count("\n") for field in row)


FIELD = r'(?:"(?:[^"]|"")*"|[^",\n]*)'
TWO_FIELDS = re.compile(f"(?:{FIELD},{FIELD}\n)*{FIELD},{FIELD}")


@settings(max_examples=200)
@given(st.text(st.sampled_from('a,"\n'), max_size=14))
def test_quotes_are_right_or_refused(body):
    content = f"x,y\n{body}".encode()
    if not TWO_FIELDS.fullmatch(body.rstrip("\n")):
        with pytest.raises(UserError, match=r"^s"):
            read_text_table(content, name="s", form=CSV)
        return
    expected = list(csv.reader(io.StringIO(body.rstrip("\n"), newline=""), strict=True))
    found = read_text_table(content, name="s", form=CSV).frame.rows()
    assert found == [tuple(row) for row in expected]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"1\n2\t3\n", "line 22: 1 tab-separated fields, the header has 2"),
        (b"1\t2\t3\n", "line 22: 3 tab-separated fields"),
        (b"1\t2\n\n1\t2\n", "line 23: 1 tab-separated"),
        (b"1\t2\n1\t\0\n", "line 23: a NUL byte"),
        (b"1\t2\n1\t\xe9\n", "line 23: byte 0xe9 is not valid UTF-8; convert the file"),
        (b"1\t2\na\tb\n1\t2\n", "line 23: the header again; remove"),
        (b'1\t2\n1\t"2\n3\t4\n', 'line 23: a double quote (")'),
        (b'1\t2\n1\t2"x"\n3\t4\n', "line 23: a double quote"),
        (b'1\t2\n1\t"x"y\n3\t"4"\n', "line 23: a double quote"),
    ],
)
def test_faults_are_named_by_their_line(bad, message):
    content = b"a\tb\r\n" + "\u00e9\tx\r\n".encode() * 20 + bad
    with pytest.raises(UserError) as caught:
        read_text_table(content, name="s", form=TextFormat("\t", quoted=b'"' in bad))
    assert str(caught.value).startswith(f"s, {message}")


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (b"", {}, "shop: the file is empty; give a header"),
        (b" \n\n", {}, "shop: the file is empty"),
        (
            b"\r\n",
            {"columns": ["a", "b"]},
            "shop, line 1: 1 tab-separated fields, the format has 2",
        ),
        (b"", {"columns": ["a"]}, "shop: the file is empty; give rows"),
        (b"a\tb\n\n", {}, "shop, line 1: no rows below the header"),
        (b"a,b\r1,2\r", {"form": CSV}, "shop, line 1: its lines end with a carriage return alone"),
        (b"\x1f\x8b\x08\x00rest", {}, "shop, line 1: compressed (gzip); save it as text in UTF-8"),
        (b"PK\x03\x04rest", {}, "shop, line 1: a zip archive or a spreadsheet; save it"),
        (b"PAR1rest", {}, "shop, line 1: a parquet file; save it"),
        (b"\na\tb\n1\t2\n", {}, "shop, line 1: blank; the first line must name"),
        (b"a\t\n1\t2\n", {}, "shop, line 1, column 2: empty column name"),
        (b"a\ta \n1\t2\n", {}, "shop, line 1: column 'a' occurs twice"),
        (b'"a,b\n1,2\n', {"form": CSV}, "shop, line 1: a double quote"),
        (b"1:2\n", {"form": COLONS, "columns": ["a", "b"]}, "shop, line 1: 1 '::'-separated"),
        ("a\tb\n1\t2\n".encode("utf-16"), {}, "shop, line 1: text in UTF-16; save it"),
        ("a\tb\n1\t2\n".encode("utf-16-le"), {}, "shop, line 1: a NUL byte"),
    ],
)
def test_faults_of_files(content, settings, message):
    with pytest.raises(UserError) as caught:
        read_text_table(content, name="shop", **settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read_text_table(tmp_path / "none.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_text_table(tmp_path)
    (tmp_path / "t").write_bytes(b"a\tb\n1\t2\n")
    assert read_text_table(tmp_path / "t").name == str(tmp_path / "t")


def column(*cells):
    return read_text_table(("x\ty\n" + "".join(f"{c}\t\n" for c in cells)).encode(), name="s")


def test_numbers_are_whole_where_all_are_written_so():
    big = column("9007199254740993", " -7 ", "+1").numbers("x")
    assert big.dtype == pl.Int64
    assert big.to_list() == [9007199254740993, -7, 1]
    assert column("1", "2.5", "1e2").numbers("x").to_list() == [1.0, 2.5, 100.0]


@pytest.mark.parametrize(
    "cell",
    ["", "x", "nan", "inf", "-inf", "1e400", "1_000", "0x10", "1,5", "\u0661\u0662", "1 2", "--1"],
)
def test_what_is_no_number_is_named_by_line_and_column(cell):
    with pytest.raises(UserError) as caught:
        column("1", cell, "also bad").numbers("x")
    assert str(caught.value).startswith(f"s, line 3, column 'x': {shown(cell)} is not a finite")


@pytest.mark.parametrize("cell", ["-1", "-0.5", "9007199254740993", "9" * 20, "1e300"])
def test_what_is_no_time_is_named_by_line_and_column(cell):
    with pytest.raises(UserError) as caught:
        column("1", cell, "-3").times("x")
    assert str(caught.value).startswith(f"s, line 3, column 'x': {shown(cell)} is not a time")
    assert column("0", "9007199254740992").times("x").to_list() == [0, 2**53]


def test_required_and_unique_cells():
    table = column("b", "a", "b", " ", "")
    with pytest.raises(UserError, match="s, line 5, column 'x': empty cell"):
        table.require("x")
    with pytest.raises(UserError, match="s, line 4, column 'x': 'b' has a row already"):
        table.require_unique("x")
    with pytest.raises(UserError, match=r"s, line 1: no column 'z' among \['x', 'y'\]; add it"):
        table.require("z")


def test_long_values_are_cut_in_errors():
    with pytest.raises(UserError) as caught:
        column("7" * 5000 + "x").numbers("x")
    assert len(str(caught.value)) < 250
