import re
from dataclasses import replace

import pytest
from html_page import Page

from delrec_jax.analysis.beyond_blocks import beyond_blocks
from delrec_jax.analysis.report import Curve, WorkedExample, render_report, write_report
from delrec_jax.errors import UserError


def measured(system, seed=0, **values):
    """A row of `evaluation.beyond_accuracy`."""
    names = ("coverage", "concentration", "popularity", "novelty", "jaccard", "same_first")
    told = {"system": system, "teacher": "sasrec", "seed": seed, "users": 40}
    return told | dict.fromkeys(names) | values


BEYOND = [
    measured("targets", -1, popularity=0.6, novelty=1.0) | {"teacher": ""},
    *[
        measured("delrec", seed, coverage=0.4 + 0.2 * seed, popularity=0.3, novelty=2.0)
        | {"jaccard": 0.25, "same_first": 1.0}
        for seed in (0, 1)
    ],
    measured("teacher", coverage=0.5, popularity=0.7, novelty=1.5),
]


@pytest.fixture(scope="module")
def text(report_data):
    return render_report(report_data)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_needs_nothing_outside_itself(text, page):
    assert "http" not in text and "//" not in re.sub(r"data:[^\"]*", "", text).replace("*/", "")
    assert "src" not in {name for _, attrs in page.tags for name in attrs}
    assert "@import" not in text and "url(" not in re.sub(r"url\(#", "", text)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_every_part_is_on_the_page(page, report_data):
    for part in (
        "answer", "headline", "cold", "tests", "agreement", "training", "users", "examples", "notes",
        "reproduce",
    ):  # fmt: skip
        assert part in page.ids
    words = "".join(page.words)
    for said in (
        *report_data.summary.values(),
        *report_data.notes,
        report_data.command,
        '"learning_rate": 0.1',
        "cold target",
        "not among the candidates",
        "LM + distilled prompt (step 300) vs LM + shuffled prompt",
    ):
        assert said in words, said


def test_lists_have_a_section_where_they_were_recorded(report_data, page):
    assert "beyond" not in page.ids
    shown = Page(render_report(replace(report_data, beyond=BEYOND)))
    assert "beyond" in shown.ids and "#beyond" in shown.links
    assert "What the users took" in shown.words


def test_the_table_of_lists_shows_means_over_seeds_and_targets_last():
    (block,) = beyond_blocks(BEYOND)
    lines = {line.label: [cell.text for cell in line.cells] for line in block.lines}
    assert list(lines) == ["Teacher (sasrec)", "DELRec", "What the users took"]
    assert lines["DELRec"] == ["0.500", "–", "0.300", "2.000", "0.250", "1.000"]
    assert lines["What the users took"] == ["–", "–", "0.600", "1.000", "–", "–"]
    assert block.lines[1].cells[0].interval == "± 0.141"
    assert "of 40 test users" in block.note and "Means over seeds" in block.note
    assert beyond_blocks([]) == []


@pytest.mark.parametrize(
    ("system", "spread"), [("delrec", "± 0.000"), ("hybrid(markov+ease)", ""), ("markov", "")]
)
def test_what_no_seed_can_change_has_no_spread(system, spread):
    row = next(row for row in BEYOND if row["system"] == "delrec")
    (block,) = beyond_blocks([row | {"system": system, "seed": seed} for seed in (0, 1)])
    assert block.lines[0].cells[0].interval == spread


def test_figures_are_markup_and_user_text_is_not(text, page):
    assert text.count('<svg role="img"') == 3 + 2 + 2 + 1
    assert "A <b>bold</b> & title" in "".join(page.words)
    assert "<b>bold" not in text


def test_examples_mark_the_target_and_order_by_the_last_system(text):
    example = text[text.index('id="examples"') :]
    rows = re.findall(r"<tr( class=\"target\")?><th scope=\"row\">(.*?)</tr>", example)
    assert [bool(marked) for marked, _ in rows] == [True, False, False] + [False] * 3
    assert "Three" in rows[0][1] and ">2.5<" in rows[0][1] and ">1<" in rows[0][1]


def test_empty_sections_leave_no_trace(report_data):
    bare = replace(
        report_data,
        metrics=[row for row in report_data.metrics if row["protocol"] == "full"][:6],
        comparisons=(), agreement=(), log=(), curves=(), adapter_ranks=(), examples=(), notes=(),
        headline=None, users=None,
    )  # fmt: skip
    page = Page(render_report(bare))
    assert set(page.ids) & {
        "answer", "headline", "cold", "tests", "agreement", "training", "users", "examples", "notes",
    } == {"headline"}  # fmt: skip


def test_missing_inputs_are_user_errors(report_data):
    with pytest.raises(UserError, match="no metric rows"):
        render_report(replace(report_data, metrics=()))
    with pytest.raises(UserError, match="no run logged 'absent'"):
        render_report(replace(report_data, curves=(Curve("absent", "t"),)))
    short = WorkedExample("u9", ("a",), "b", ("b", "c"), {"teacher": (1,)})
    with pytest.raises(UserError, match=r"'u9': 1 ranks of 'teacher' for 2 candidates"):
        render_report(replace(report_data, examples=(short,)))
    with pytest.raises(UserError, match="'u9' shows no system"):
        render_report(replace(report_data, examples=(replace(short, ranks={}),)))


def test_the_same_data_gives_the_same_file(tmp_path, report_data, text):
    path = tmp_path / "report" / "index.html"
    write_report(path, report_data)
    assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
