"""The reports of finished runs and the page of a study in a browser: axe-core, phones, dark pages, the filter, printing.

Needs `pip install -e '.[browser]'`, Chromium (`apt-get install chromium`, or CHROMIUM=PATH) and axe-core
(`npm install --no-save --no-package-lock axe-core` in the repository, or AXE=PATH of its axe.min.js).
"""

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from delrec_jax.analysis.blocks import Block, Cell, Line
from delrec_jax.analysis.study_plots import Bars, Measured
from delrec_jax.results.study_page import Link, StudyPage, write_page

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDE = Line("delrec", "DELRec", tuple(Cell(f"0.{n}00", "[0.100, 0.900]") for n in range(1, 9)))
STUDY = StudyPage(
    title="Components",
    question="Which parts matter?",
    facts={"Corpus": "toy"},
    blocks=(Block("Table", "A note.", ("System", *"abcdefgh"), (WIDE,)),),
    figures=(Bars("Bars", "HR@1", (Measured("DELRec", 0.25, 0.2, 0.3), Measured("EASE", 0.1))),),
    links=(Link("seed 0", "../runs/report/index.html", "done"),),
    notes=("Read with care.",),
    command="delrec study --file=a-study-with-a-name-that-is-longer-than-a-phone-is-wide.toml",
)


@pytest.fixture(scope="module")
def playwright():
    """The driver of Playwright; skips with a reason if it or the browser is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[browser]'")
    with api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium():
    found = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    if not found:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM")
    return found


@pytest.fixture(scope="module")
def axe():
    """The text of axe-core."""
    path = Path(os.environ.get("AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
    if not path.is_file():
        pytest.skip(
            "no axe-core here: npm install --no-save --no-package-lock axe-core, or set AXE"
        )
    return path.read_text(encoding="utf-8")


@pytest.fixture(params=("tiny_run", "p2rec_run", "study"))
def address(request, tmp_path):
    if request.param == "study":
        path = tmp_path / "index.html"
        write_page(path, STUDY)
    else:
        path = request.getfixturevalue(request.param) / "report" / "index.html"
    return path.as_uri()


@pytest.fixture
def opened(playwright, chromium, tmp_path):
    """(address, width, colors, scripts) -> the page in a browser of its own, which refuses every other address."""

    @contextmanager
    def open_page(address, width=1280, colors="light", scripts=True):
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / f"profile-{width}-{colors}-{scripts}",
            executable_path=chromium,
            args=FLAGS,
            viewport={"width": width, "height": 800},
            color_scheme=colors,
            java_script_enabled=scripts,
            offline=True,
        )
        asked, mistakes = [], []
        try:
            page = browser.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda said: mistakes.append(said.text))
            page.on("pageerror", lambda error: mistakes.append(str(error)))
            page.goto(address)
            yield page
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            assert mistakes == []
        finally:
            browser.close()

    return open_page


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("colors", ["light", "dark"])
def test_axe_finds_nothing_and_the_page_does_not_scroll_sideways(
    opened, address, axe, width, colors
):
    with opened(address, width, colors) as page:
        for everything in (False, True):
            if everything:
                page.evaluate(
                    "for (const one of document.querySelectorAll('details')) one.open = true"
                )
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} pixels, all open: {everything}"
        page.evaluate(axe)
        found = page.evaluate("axe.run(document)")
        assert len(found["passes"]) > 10, "axe looked at the page"
        wrong = [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]
        assert wrong == []


def test_axe_sees_a_mistake(opened, axe, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><title>x</title><main><h1>x</h1><img src='data:,'></main>")
    with opened(path.as_uri()) as page:
        page.evaluate(axe)
        found = page.evaluate("axe.run(document)")["violations"]
        assert {"image-alt", "html-has-lang"} <= {one["id"] for one in found}


def test_a_dark_page_is_dark_and_a_printed_one_is_not(opened, address):
    ground = "getComputedStyle(document.documentElement).getPropertyValue('--paper')"
    with opened(address, colors="dark") as page:
        dark = page.evaluate(ground)
        page.emulate_media(media="print")
        assert page.evaluate(ground) == "#ffffff" != dark


@pytest.mark.parametrize("run", ["tiny_run", "p2rec_run"])
def test_the_filter_shows_one_group_and_a_page_without_scripts_shows_all(opened, run, request):
    address = (request.getfixturevalue(run) / "report" / "index.html").as_uri()
    rows = "#user-table tr[data-group]"
    with opened(address) as page:
        everyone = page.locator(rows).count()
        assert page.locator(f"{rows}:visible").count() == everyone > 12
        for group in ("ours_only", "theirs_only", "both", "neither"):
            page.check(f"#user-filter input[value={group}]")
            wanted = page.locator(f"{rows}[data-group={group}]").count()
            assert page.locator(f"{rows}:visible").count() == wanted
            assert page.locator(f"{rows}[data-group={group}]:visible").count() == wanted
        page.check("#user-filter input[value='']")
        assert page.locator(f"{rows}:visible").count() == everyone
    with opened(address, scripts=False) as page:
        assert page.locator(f"{rows}:visible").count() == everyone
        assert not page.locator("#user-filter").is_visible()


def test_folded_tables_are_printed(opened, tiny_run):
    address = (tiny_run / "report" / "index.html").as_uri()
    folded = "details.fold:not([open]) table"
    with opened(address) as page:
        count = page.locator(folded).count()
        assert count > 5 and not page.locator(folded).first.is_visible()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator(folded).count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator(folded).count() == count


@pytest.mark.parametrize("run", ["tiny_run", "p2rec_run"])
def test_three_users_of_the_chosen_group_are_printed(opened, run, request):
    address = (request.getfixturevalue(run) / "report" / "index.html").as_uri()
    rows, note = "#user-table tr[data-group]", ".on-paper"
    with opened(address) as page:
        everyone = page.locator(rows).count()
        assert not page.locator(note).is_visible()
        page.emulate_media(media="print")
        assert page.locator(note).is_visible() and str(everyone) in page.locator(note).inner_text()
        assert page.locator(f"{rows}:visible").count() == 3
        page.emulate_media(media="screen")
        group = page.locator(rows).last.get_attribute("data-group")
        page.check(f"#user-filter input[value={group}]")
        wanted = min(3, page.locator(f"{rows}[data-group={group}]").count())
        page.emulate_media(media="print")
        assert page.locator(f"{rows}:visible").count() == wanted
        assert page.locator(f"{rows}[data-group={group}]:visible").count() == wanted
        pages = re.findall(rb"/Type\s*/Page\b", page.pdf())
        assert 5 < len(pages) <= 22  # more with all users
