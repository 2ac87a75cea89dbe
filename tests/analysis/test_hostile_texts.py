"""Titles of a hostile corpus are text on every page and in every table, whatever they hold."""

import re
from dataclasses import replace

import pytest
from html_page import Page

from delrec_jax.analysis.blocks import Block, Cell, Line, print_blocks, to_markdown
from delrec_jax.analysis.report import render_report
from delrec_jax.results.study_page import Link, StudyPage, render_page

HOSTILE = [
    "<script>alert(1)</script>",
    "</td></tr></table></main><iframe src=x>",
    "\"' onmouseover='alert(1)' x=\"",
    "<!-- <![CDATA[ ]]> <?php",
    "&lt;b&gt; &#60;b&#62; &amp;",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "\u2028\u2029</script\u2028><svg/onload=alert(1)>",
    "line\nfeed\ttab | pipe || `code` ~~~",
    "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\ud800",
    "[red]bold[/] [/nothing] [link=file:///etc/passwd]x[/link] :skull:",
]


def retitled(data, text):
    """Report data whose every title and name of others ends in a text."""

    def one(title):
        return title + text

    def all_of(titles):
        return tuple(map(one, titles))

    def answered(answers):
        return tuple(
            replace(answer, titles=tuple((one(title), hit) for title, hit in answer.titles))
            for answer in answers
        )

    rows = tuple(
        replace(
            user,
            history=all_of(user.history),
            target=one(user.target),
            main=answered(user.main),
            others=answered(user.others),
        )
        for user in data.users.users
    )
    examples = tuple(
        replace(
            example,
            user=one(example.user),
            history=all_of(example.history),
            target=one(example.target),
            candidates=all_of(example.candidates),
        )
        for example in data.examples
    )
    return replace(
        data,
        title=one(data.title),
        summary={name: one(value) for name, value in data.summary.items()},
        command=one(data.command),
        config={"data": {"path": one("shop")}},
        notes=all_of(data.notes),
        users=replace(data.users, users=rows, rule=one(data.users.rule)),
        examples=examples,
        categories=[
            {"category": 0, "size": 4, "share": 0.5, "titles": list(all_of(("A", "B")))},
        ],
    )


def shape(text):
    """The tags of a page with their attributes, in order, but for what those for screen readers say."""
    page = Page(text.encode("utf-8", "replace").decode())
    return [
        (tag, {name: value for name, value in attrs.items() if name != "aria-label"})
        for tag, attrs in page.tags
    ], page


def test_a_report_has_the_same_tags_whatever_the_titles(report_data):
    """All texts at once: a report takes a second to render."""
    text = " ".join(HOSTILE)
    tags, page = shape(render_report(retitled(report_data, text)))
    assert tags == shape(render_report(retitled(report_data, "")))[0]
    assert "".join(page.words).count(text.encode("utf-8", "replace").decode()) > 40


@pytest.mark.parametrize("text", HOSTILE)
def test_a_study_page_has_the_same_tags_whatever_the_names(text):
    def page(added):
        block = Block(f"T{added}", f"n{added}", (f"c{added}",), (Line("", f"l{added}", ()),))
        return StudyPage(
            title=f"t{added}",
            question=f"q{added}",
            facts={f"f{added}": f"v{added}"},
            blocks=(block,),
            links=(Link(f"run{added}", "../a/index.html", f"note{added}"),),
            notes=(f"n{added}",),
            command=f"delrec{added}",
        )

    tags, found = shape(render_page(page(text)))
    assert tags == shape(render_page(page("")))[0]
    assert text.encode("utf-8", "replace").decode() in "".join(found.words)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_of_a_markdown_table_stays_a_cell(text):
    block = Block("T", "n", ("System", text), (Line("", text, (Cell(text, text),)),) * 2)
    lines = to_markdown(block).splitlines()
    assert len(lines) == 8
    for line in lines[4:6] + lines[6:]:
        assert len(re.split(r"(?<!\\)\|", line)) == 4, line
        assert not re.search(r"<[a-z!?/]", line), line
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e\ud800]", "".join(lines))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_on_the_terminal_obeys_nothing(text, capsys):
    print_blocks([Block(text, text, ("System", text), (Line("", text, (Cell(text),)),))])
    told = capsys.readouterr().out
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e\ud800]", told)
    if text.startswith("[red]"):
        assert told.count("[red]bold[/] [/nothing]") == 5
