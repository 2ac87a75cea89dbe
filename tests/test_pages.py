"""README.md and docs/: links name files, numbers are those of the stored results, and the index of the results is complete.

That tables are what `results/` says is tested in tests/analysis/test_evidence_tables.py.
"""

import json
import re

import pytest
from readme_text import GUIDES, PROSE, ROOT, printed
from readme_text import PAGES as GUIDE_PAGES
from result_quotes import QUOTES, filled

from delrec_jax.results import names
from delrec_jax.results.provenance import RESULTS

PAGES = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "launch").glob("*.md")]
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
NUMBER = re.compile(r"(?<![\w.])\d+\.\d{3,}(?!\w)")


def dead_links(page):
    """The relative links of a page that name nothing."""
    links = [one for one in LINK.findall(page.read_text()) if "://" not in one]
    return [one for one in links if not (page.parent / one).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_names_a_file(page):
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#part), [b](none.md), [c](https://example.org/none.md)")
    assert dead_links(page) == ["none.md"]


def test_every_page_that_the_code_names_exists():
    files = [
        one
        for room in ("delrec_jax", "configs", "benchmarks")
        for one in (ROOT / room).rglob("*.py")
    ]
    named = {found for one in files for found in re.findall(r"docs/[\w/]+\.md", one.read_text())}
    assert "docs/results/older.md" in named
    assert [one for one in sorted(named) if not (ROOT / one).is_file()] == []


def test_the_index_of_the_results_names_every_page_once():
    folder = ROOT / "docs" / "results"
    rows = re.findall(r"^\| \[([\w.]+)\]\(\1\) \| .+ \|$", (folder / "README.md").read_text(), re.M)
    assert sorted(rows) == sorted(
        one.name for one in folder.glob("*.md") if one.name != "README.md"
    )


def test_every_stored_result_is_on_a_page():
    pages = "".join(one.read_text() for one in (ROOT / "docs" / "results").glob("*.md"))
    stored = {f"{one.stem} measured" for one in (RESULTS / "measured").glob("*.json")}
    stored |= {f"{one.parent.name} origin" for one in RESULTS.glob("*/summary.json")}
    assert stored == set(re.findall(r"<!-- table: (\w+ (?:measured|origin)) -->", pages))


def unknown_numbers(text, place):
    """Numbers with three digits or more after the point that no page says to which their section links, in its digits.

    A page has many numbers, so this finds what stands nowhere, not what stands in the wrong place; `QUOTES` does the latter.
    """
    unknown = []
    for section in re.split(r"^## ", text, flags=re.M):
        pages = [place / one for one in LINK.findall(section) if "results/" in one]
        said = {
            float(one)
            for page in pages
            if page.suffix == ".md"
            for one in NUMBER.findall(page.read_text())
        }
        for one in NUMBER.findall(re.sub(r"arXiv \d+\.\d+", "", section)):
            half = 0.5 * 10.0 ** -len(one.partition(".")[2])
            if all(abs(float(one) - other) > half * (1 + 1e-9) for other in said):
                unknown.append(one)
    return unknown


@pytest.mark.parametrize("page", GUIDE_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_number_of_a_guide_stands_on_the_pages_it_links_to(page):
    prose = page.read_text()
    for block in printed(prose):
        prose = prose.replace(block, "")
    assert unknown_numbers(prose, page.parent) == []


def test_the_guides_quote_numbers():
    assert len(NUMBER.findall(PROSE)) > 30


def test_a_number_that_no_page_says_is_found(tmp_path):
    page = tmp_path / "docs" / "results" / "page.md"
    page.parent.mkdir(parents=True)
    page.write_text("| 0.1234 | -0.0056 |")
    link = "[results](docs/results/page.md)"
    assert (
        unknown_numbers(f"## A\n0.123, -0.006, 0.1234, 2.5, arXiv 2406.00333: {link}", tmp_path)
        == []
    )
    assert unknown_numbers(f"## A\n0.124 and 0.1233: {link}", tmp_path) == ["0.124", "0.1233"]
    assert unknown_numbers(f"## A\n{link}\n\n## B\n0.123, without a link", tmp_path) == ["0.123"]


@pytest.mark.parametrize("template", QUOTES)
def test_readme_quotes_what_the_results_say(template):
    assert filled(template, QUOTES[template]) in PROSE


def test_the_readmes_demo_table_is_the_stored_one():
    rows = [
        row
        for row in json.loads((RESULTS / "storefront" / "summary.json").read_text())["systems"]
        if (row["protocol"], row["group"]) == ("full", "all")
    ]
    (oracle,) = [row["HR@1"]["mean"] for row in rows if row["system"] == "oracle"]
    (block,) = printed(GUIDES)
    found = [re.split(r"\s{2,}", line.strip()) for line in block.splitlines()]
    start = next(place for place, cells in enumerate(found) if cells[0] == "System")
    metrics = found[start][1:-1]
    assert found[start + 1 :] == [
        [
            _label(row),
            *(_cell(row, one) for one in metrics),
            f"{100 * row['HR@1']['mean'] / oracle:.0f} %",
        ]
        for row in sorted(rows, key=lambda row: names.order(row["system"]))
    ]


def _label(row):
    step = f" (step {row['step'][0]})" if "step" in row else ""
    return names.title(row["system"], row["teacher"] if row["system"] == "teacher" else "") + step


def _cell(row, metric):
    number = row[metric]
    interval = (
        f" [{number['low']:.3f},{number['high']:.3f}]" if metric in ("HR@1", "NDCG@10") else ""
    )
    return f"{number['mean']:.3f}{interval}"
