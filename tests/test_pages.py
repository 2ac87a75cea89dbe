"""The figures of README.md are those of the pages and of results/, and all links lead somewhere."""

import json
import re
from pathlib import Path

import pytest

from delrec_jax.analysis.labels import SYSTEM_LABELS
from delrec_jax.evaluation.metrics import METRICS
from delrec_jax.results import names

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
DOCUMENTS = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "launch" / "README.md",
    *(ROOT / "docs").rglob("*.md"),
]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
FIGURE = re.compile(r"(?<![\w.])[-+]?(\d\.\d{3,})(?![\d.])")
ROW = re.compile(r"^  (\S.*?) {2,}(\d\.\d{3}) \[(\S+),(\S+)\] +(.+?)(?: +(\d+) %)?$")


def label(path):
    return str(path.relative_to(ROOT))


def dead_links(text, folder):
    return [link for link in LINK.findall(text) if not (folder / link).exists()]


def missing_figures(text, pages):
    """Figures of a text that are in none of the pages, rounded to the digits that the text shows."""
    there = [float(one) for page in pages for one in FIGURE.findall(page)]
    return [
        figure
        for figure in FIGURE.findall(text)
        if not any(abs(float(figure) - one) <= 0.5001 * 10 ** -len(figure[2:]) for one in there)
    ]


def paragraphs(text):
    """Paragraphs of prose; what is in code blocks is no prose."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [part for part in prose.split("\n\n") if FIGURE.search(part)]


def linked(paragraph):
    """The pages of results that a paragraph leads to; all of them if it names none."""
    found = [ROOT / link for link in LINK.findall(paragraph) if link.startswith("docs/results/")]
    return [path.read_text() for path in found if path.suffix == ".md" and path.name != "README.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_every_link_leads_to_a_file(path):
    assert dead_links(path.read_text(), path.parent) == []


def test_a_dead_link_would_be_found():
    assert dead_links("[a](README.md) [b](no/such.md#part) [c](https://x.y)", ROOT) == [
        "no/such.md"
    ]


@pytest.mark.parametrize("place", range(len(paragraphs(README.read_text()))))
def test_figures_in_the_readme_are_on_the_pages_that_it_names(place):
    paragraph = paragraphs(README.read_text())[place]
    every = [path.read_text() for path in PAGES]
    assert missing_figures(paragraph, linked(paragraph) or every) == []


def test_a_figure_that_nobody_measured_would_be_found():
    assert missing_figures("from 0.084 to 0.0914", ["0.0835 [0.0835, 0.0912]"]) == ["0.0914"]


def test_the_demo_table_of_the_readme_is_the_stored_one():
    stored = json.loads((ROOT / "results" / "storefront" / "summary.json").read_text())
    rows = {
        shown(row): [f"{row[metric]['mean']:.3f}" for metric in METRICS]
        for row in stored["systems"]
        if (row["protocol"], row["group"]) == ("full", "all")
    }
    found = {}
    for line in README.read_text().splitlines():
        if told := ROW.match(line):
            rest = re.sub(r"\[.*?\]", "", told[5]).split()
            found[re.sub(r" \(step \d+\)$", "", told[1])] = [told[2], *rest]
    assert len(found) > 20
    assert {name: row[: len(METRICS)] for name, row in found.items()} == {
        name: rows[name] for name in found
    }


def shown(row):
    """A system as the demo's table names it."""
    parts = names.parts(row["system"])
    if len(parts) > 1:
        return " + ".join(re.sub(r" \(.*", "", SYSTEM_LABELS[part]) for part in parts)
    text = SYSTEM_LABELS.get(row["system"], row["system"])
    return f"{text} ({row['teacher']})" if row["system"] == "teacher" else text
