"""Somebody uses the page: the command in a process of its own, and the system's Chromium."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiling import QUICK_ENVIRONMENT
from tiny_storefront import open_workspace

from delrec_jax.serving.recommender import Recommender

pytestmark = pytest.mark.slow

PATIENCE = 300_000  # ms: the first answer compiles
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
FIRST, SECOND = "Tangled Stone Mystery Book Two", "Wandering Clock Mystery Book Four"


@pytest.fixture(scope="module")
def address(tiny_run):
    """Where `delrec app` says that the page is."""
    pytest.importorskip("gradio", reason="needs the extra `app`")
    program = Path(sys.executable).parent / "delrec"
    command = [program, "app", f"--workdir={tiny_run}", "--port=0"]
    quick = {**os.environ, **QUICK_ENVIRONMENT}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quick) as process:
        try:
            line = next(line for line in process.stdout if line.startswith("app: "))
            yield re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        finally:
            process.terminate()


@pytest.fixture
def browser(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs the system's chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, args=FLAGS
        )
        browser.set_default_timeout(PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def watched(browser):
    """A page of the browser, all addresses that it asked for, and all that it complained of."""
    page, asked, complaints = browser.new_page(), [], []
    browser.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda opened: asked.append(opened.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    return page, asked, complaints


def pick(page, words, title):
    """Types words and picks a title once the matches are those of the words."""
    box = page.get_by_label("Search for a title")
    box.fill("")
    box.press_sequentially(words)
    page.get_by_text("Titles: 1", exact=True).wait_for()
    page.get_by_role("radio", name=title).click()
    page.get_by_role("checkbox", name=title).wait_for()


def shown(page, system):
    """The titles in the list of a system, and the changes beside them."""
    lists = page.locator(".list").filter(has=page.get_by_role("heading", name=system, exact=True))
    return lists.locator(".title").all_inner_texts(), lists.locator(".change").all_inner_texts()


def test_a_visitor_asks_removes_an_item_and_reverses(address, watched, tiny_run):
    recommender = Recommender(open_workspace(tiny_run))
    page, asked, complaints = watched
    page.goto(address)
    pick(page, "stone mystery two", FIRST)
    pick(page, "wandering mystery four", SECOND)
    page.get_by_role("button", name="Recommend").click()
    page.locator(".list").first.wait_for()
    assert page.locator(".list").count() == 5
    for system, label in (("teacher", "Teacher (SASRec)"), ("delrec", "DELRec")):
        expected = recommender.recommend([FIRST, SECOND], 10, system=system)["title"].to_list()
        assert shown(page, label) == (expected, [""] * 10)

    page.get_by_role("checkbox", name=FIRST).uncheck()
    page.locator(".asked", has_text=re.compile(f"^{SECOND}$")).wait_for()
    assert page.locator(".histories").inner_text().endswith(f"{FIRST} → {SECOND}")
    titles, changes = shown(page, "Teacher (SASRec)")
    assert titles == recommender.recommend([SECOND], 10, system="teacher")["title"].to_list()
    assert all(re.fullmatch("=|new|[▲▼]\\d+", change) for change in changes)

    page.get_by_role("checkbox", name=FIRST).check()
    page.locator(".asked", has_text=f"{FIRST} → {SECOND}").wait_for()
    page.get_by_label("Reverse the order").check()
    page.locator(".asked", has_text=f"{SECOND} → {FIRST}").wait_for()
    titles, _ = shown(page, "DELRec")
    assert titles == recommender.recommend([SECOND, FIRST], 10)["title"].to_list()

    page.get_by_role("button", name="What the language models read").click()
    page.locator(".texts pre", has_text="[P0] [P1] [P2]").first.wait_for()

    page.get_by_label("Length of the lists").fill("0")
    page.get_by_role("button", name="Recommend").click()
    page.get_by_role("alert").filter(has_text="whole number from 1 to 34").wait_for()
    page.get_by_role("button", name="Clear the history").click()
    page.get_by_role("checkbox", name=FIRST).wait_for(state="detached")
    page.get_by_role("button", name="Recommend").click()
    page.get_by_role("alert").filter(has_text="The history is empty").wait_for()
    assert complaints == []
    assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked)


@pytest.mark.parametrize("width", [420, 1280])
@pytest.mark.parametrize("look", ["light", "dark"])
def test_the_page_fits_its_window(address, watched, width, look):
    page, _, complaints = watched
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{address}/?__theme={look}")
    pick(page, "stone mystery two", FIRST)
    page.get_by_role("button", name="Recommend").click()
    page.locator(".list").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for place in page.locator(".list").all():
        box = place.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert complaints == []
