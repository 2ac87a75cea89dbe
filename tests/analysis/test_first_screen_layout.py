"""The first screen and the users as they stand on the page."""

import re
from dataclasses import replace

import pytest
from html_page import Page

from delrec_jax.analysis.report import render_report


@pytest.fixture(scope="module")
def text(report_data):
    return render_report(report_data)


def between(text, start, end):
    return text[text.index(start) :].split(end, 1)[0]


def test_the_first_screen_comes_first_with_its_sentences_and_its_picture(text, headline):
    first = between(text, 'id="answer"', "</section>")
    assert text.index('id="answer"') < text.index('class="facts"') < text.index('id="headline"')
    for said in (*headline.sentences()[0], headline.small_print()):
        assert said.replace("'", "&#39;").replace("<", "&lt;") in first
    assert f"(oracle) has {headline.oracle:.3f}</caption>" in first


def test_controls_the_baseline_and_the_oracle_are_marked(text, headline):
    first = between(text, 'id="answer"', "</section>")
    rows = re.findall(r'<tr(?: class="(\w+)")?><th scope="row">(.*?)</th>', first)
    assert len(rows) == len(headline.standings)
    kinds = {re.sub(" <span.*", "", label): kind for kind, label in rows}
    assert kinds["DELRec"] == "method" and kinds["LM + shuffled prompt"] == "control"
    for kind, label in rows:  # in words too, not by color alone
        assert ("control</span>" in label) == (kind == "control")
        assert ("best simple baseline</span>" in label) == (kind == "baseline")
    assert first.count('class="oracle" x1=') == len(rows)


def test_without_an_oracle_no_line_is_drawn(report_data, headline):
    bare = render_report(replace(report_data, headline=replace(headline, oracle=None)))
    assert "oracle" not in between(bare, 'id="answer"', "</section>")


def test_the_main_tables_are_open_and_the_others_are_folded(text):
    folds = re.findall(r'<details class="card fold"( open)?>\n<summary><h3>(.*?)</h3>', text)
    opened = [title for is_open, title in folds if is_open]
    assert opened == ["storefront · leave_one_out · full", "Paired tests"]
    assert len(folds) > 5


def test_every_user_shows_history_target_and_all_systems(text, users, headline):
    table = between(text, 'id="user-table"', "</table>")
    rows = re.findall(r'<tr data-group="(\w+)">(.*?)</tr>', table, re.DOTALL)
    assert len(rows) == len(users.users) > 4
    for (group, row), user in zip(rows, users.users, strict=True):
        assert group == user.group and f'<th scope="row">{user.user}<' in row
        assert row.count("<dt>") == len(headline.standings) - 2
        ours, theirs = (answer.rank for answer in user.main)
        right = float(ours) <= 5, float(theirs) <= 5
        wanted = {"ours_only": (1, 0), "theirs_only": (0, 1), "both": (1, 1), "neither": (0, 0)}
        assert right == wanted[group]
        assert f"rank {ours}</span>" in row and f"rank {theirs}</span>" in row
        found = [ours, theirs].count("1") + [one.rank for one in user.others if one.titles].count(
            "1"
        )
        assert row.count("<mark>") == found, "the target is marked where a list holds it"
        assert row.count("makes no lists") == 1
        assert "Title &lt;" in row and len(user.history) + user.older == user.user % 13 + 1


def test_the_filter_has_every_group_with_its_size_and_needs_a_script(text, users):
    form = between(text, "<fieldset", "</fieldset>")
    assert form.startswith('<fieldset id="user-filter" hidden>')
    values = re.findall(r'value="(\w*)"', form)
    assert values == ["", "ours_only", "theirs_only", "both", "neither"]
    shown = [sum(user.group == group for user in users.users) for group in values[1:]]
    told = re.findall(r": (\d+) of (\d+)", form)
    assert [int(count) for count, _ in told] == shown
    assert sum(int(whole) for _, whole in told) == 120
    assert "DELRec right, Teacher wrong" in form and "Teacher right, DELRec wrong" in form
    assert "drawn at random (seed 0)" in text
    assert "<tr hidden" not in text


def test_a_screen_reader_misses_nothing(text):
    assert Page(text).wrongs() == []


def test_the_check_sees_what_is_missing():
    bad = '<html><h1>a</h1><h3>b</h3><img src="x"><svg></svg><table><tr><th>x</th></tr></table></html>'
    assert Page(bad).wrongs() == [
        *("no language", "h3 after h1", "img without alt", "svg without a name"),
        *("th without scope", "table without caption"),
    ]
