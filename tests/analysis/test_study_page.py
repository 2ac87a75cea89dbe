"""The figures of a study, and the page that shows them with their numbers."""

import re
from xml.etree import ElementTree

import pytest
from html_page import Page

from delrec_jax.analysis.axis_plots import ByAxis, Curve, HeatMap
from delrec_jax.analysis.blocks import Block, Cell, Line
from delrec_jax.analysis.study_plots import Bars, CostAgainstQuality, Measured
from delrec_jax.errors import UserError
from delrec_jax.results.study_page import Link, StudyPage, render_page, run_link, write_page

ONE = Measured("DELRec <b>", 0.25, 0.2, 0.3)
BARE = Measured("EASE", 0.125)
FIGURES = (
    Bars("Bars", "HR@1", (ONE, BARE)),
    ByAxis("By k", "distill.length", "HR@1", (200, 10, 50), (Curve("DELRec", (ONE, None, BARE)),)),
    ByAxis("By kind", "weighting", "HR@1", ("a", True, 0.5), (Curve("x", (ONE, BARE, BARE)),)),
    HeatMap("Map", "HR@1", "h", "m", (5, 10), (15, 20), ((0.1, 0.2), (0.3, None))),
    CostAgainstQuality("Cost", "seconds per user", "HR@1", ((0.001, BARE), (1.5, ONE))),
)
PAGE = StudyPage(
    title="Components & more",
    question="Which <parts> matter?",
    facts={"Corpus": "toy"},
    blocks=(Block("Table", "Note.", ("System", "HR@1"), (Line("", "a", (Cell("0.5"),)),)),),
    figures=FIGURES,
    links=(Link("seed 0", "../a%20b/report/index.html", "done"), Link("seed 1", note="failed")),
    notes=("Read with care.",),
    command="delrec study",
)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.title)
def test_a_figure_is_self_contained_and_says_its_numbers(figure):
    svg = figure.svg()
    assert svg == figure.svg() and "http" not in svg and "mathdefault" not in svg
    ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    spoken = re.search(r'aria-label="([^"]*)"', svg)[1]
    for line in figure.block.lines:
        assert all(cell.text in spoken for cell in line.cells)


def test_a_figure_as_a_table():
    by_axis = FIGURES[1].block
    assert by_axis.columns == ("distill.length", "DELRec")
    assert [(line.label, *line.cells[0]) for line in by_axis.lines] == [
        *(("200", "0.2500", "[0.2000, 0.3000]"), ("10", "–", ""), ("50", "0.1250", "")),
    ]
    grid = FIGURES[3].block
    assert grid.columns == ("h \\ m", "15", "20")
    assert [cell.text for cell in grid.lines[1].cells] == ["0.3000", "–"]
    assert FIGURES[4].block.lines[0].cells[0].text == "0.001"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ByAxis("t", "k", "m", (1, 2), (Curve("x", (ONE,)),)),
            "1 points for 2 values of k",
        ),
        (lambda: ByAxis("t", "k", "m", (), ()), "k has no values"),
        (lambda: HeatMap("t", "m", "h", "k", (1,), (1, 2), ((0.1,),)), "1 values of h and 2 of k"),
        (lambda: HeatMap("t", "m", "h", "k", (1,), (1,), ((None,),)), "there is no run"),
    ],
)
def test_figures_without_the_values_that_they_need_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_the_page_is_whole_and_escaped_and_links_its_runs():
    text = render_page(PAGE)
    page = Page(text)
    words = "".join(page.words)
    assert text == render_page(PAGE) and "http" not in text and "<script" not in text
    assert text.count("<svg ") == len(FIGURES) == text.count("<summary>The numbers")
    for said in ("Which <parts> matter?", "Components & more", "Read with care.", "DELRec <b>"):
        assert said in words
    assert len(page.ids) == len(set(page.ids))
    inside = {link[1:] for link in page.links if link.startswith("#")}
    assert inside <= set(page.ids) and {"tables", "figures", "runs", "notes"} <= inside
    outside = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert outside == ["../a%20b/report/index.html"]


def test_what_is_not_there_leaves_no_trace():
    page = Page(render_page(StudyPage("t", "q")))
    assert not {"tables", "figures", "runs", "notes", "reproduce"} & set(page.ids)


def test_a_run_is_linked_by_its_report_or_else_its_folder(tmp_path):
    page = tmp_path / "out" / "index.html"
    write_page(page, PAGE)
    workdir = tmp_path / "runs" / "a b"
    workdir.mkdir(parents=True)
    assert run_link(workdir, page, "a").address == "../runs/a%20b"
    (workdir / "report").mkdir()
    (workdir / "report" / "index.html").touch()
    assert run_link(workdir, page, "a") == Link("a", "../runs/a%20b/report/index.html")
