"""Tables for other programs: what CSV and LaTeX make of every sign that means something to them."""

import csv
import io

import pytest

from delrec_jax.analysis.blocks import Block, Cell, Line
from delrec_jax.results.exports import latex, to_csv, to_latex, write_tables

BLOCK = Block(
    title="50 % of A&B_1",
    note="A note, with {braces} and p < 0.05.",
    columns=("System", "NDCG@10", "p"),
    lines=(
        Line("", 'Teacher, "x"\nand line', (Cell("0.1", "± 0.02 [0.1, 0.2]"), Cell("< 0.001"))),
        Line("", "[odd] \\name", (Cell("–"), Cell("1.000"))),
    ),
)


def test_csv_is_read_back_with_intervals_as_columns():
    rows = list(csv.reader(io.StringIO(to_csv(BLOCK))))
    assert rows == [
        ["System", "NDCG@10", "NDCG@10 interval", "p"],
        ['Teacher, "x"\nand line', "0.1", "± 0.02 [0.1, 0.2]", "< 0.001"],
        ["[odd] \\name", "–", "", "1.000"],
    ]
    empty = Block("t", "", ("System", "a"), ())
    assert to_csv(empty) == "System,a\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a % b_c & d#e $1", r"a \% b\_c \& d\#e \$1"),
        ("± 1 – 2", r"$\pm$ 1 -- 2"),
        ("{x}^~\\", r"\{x\}\textasciicircum{}\textasciitilde{}\textbackslash{}"),
        ("a < b > c | d", r"a $<$ b $>$ c \textbar{} d"),
    ],
)
def test_latex_escapes_each_sign_once(text, expected):
    assert latex(text) == expected


def test_two_tables_of_one_title_have_labels_of_their_own(tmp_path):
    write_tables(tmp_path, {"systems": BLOCK, "comparisons": BLOCK})
    labels = {
        line.strip()
        for file in tmp_path.glob("*.tex")
        for line in file.read_text().splitlines()
        if "label" in line
    }
    assert labels == {rf"\label{{tab:{name}-50-of-a-b-1}}" for name in ("systems", "comparisons")}


def test_latex_is_a_booktabs_table():
    lines = [line.strip() for line in to_latex(BLOCK).splitlines()]
    assert lines[0] == r"\begin{table}" and lines[-1] == r"\end{table}"
    assert r"\caption{\textbf{50 \% of A\&B\_1.} A note, with \{braces\} and p $<$ 0.05.}" in lines
    assert r"\label{tab:50-of-a-b-1}" in lines
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert " ".join(body) == (
        'Teacher, "x" and line & 0.1 $\\pm$ 0.02 [0.1, 0.2] & $<$ 0.001 \\\\ '
        r"{[}odd] \textbackslash{}name & -- & 1.000 \\"
    )
    assert lines[lines.index(r"\toprule") + 1] == r"System & NDCG@10 & p \\"
