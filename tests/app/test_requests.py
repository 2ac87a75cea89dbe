"""Requests of any length and of any site reach the page bounded, or not at all; Gradio itself is not needed for it."""

import asyncio
from dataclasses import replace

import pytest

from delrec_jax.app import render
from delrec_jax.app.answers import Answer, Asked, Entry, Listing, ReadText
from delrec_jax.app.command import _HEADERS, _POLICY, MOST_BYTES, Bounded, _Policy


def answered(pieces, *, stated=None, kind="http", around=Bounded, cut=False):
    """What a page gets of a request that comes in pieces, what it is answered, and how many pieces were taken."""
    seen, sent, left = [], [], list(pieces)

    async def page(scope, receive, send):
        if scope["type"] == "http":
            seen.append(await receive())
            seen.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    async def receive():
        if not left:
            return {"type": "http.disconnect"}
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left) or cut}

    async def send(message):
        sent.append(message)

    headers = [] if stated is None else [(b"content-length", stated)]
    asyncio.run(around(page)({"type": kind, "headers": headers}, receive, send))
    return seen, sent, len(pieces) - len(left)


@pytest.mark.parametrize("pieces", [[b"", b"{}"], [b"x" * MOST_BYTES], [b"x" * 1000] * 1000, [b""]])
def test_a_request_arrives_whole_and_then_that_the_browser_has_gone(pieces):
    seen, sent, _ = answered(pieces)
    assert seen == [
        {"type": "http.request", "body": b"".join(pieces)},
        {"type": "http.disconnect"},
    ]
    assert sent[0]["status"] == 200


@pytest.mark.parametrize(
    ("pieces", "stated", "taken"),
    [
        ([b"x" * (MOST_BYTES + 1)], None, 1),
        ([b"x" * 1_000_000] * 1000, None, 2),
        ([b"x" * 1_000_000] * 1000, b"10", 2),
        ([b"x"] * 10, b"%d" % (MOST_BYTES + 1), 0),
        ([b"x"] * 10, b"9" * 5000, 0),
    ],
)
def test_a_request_that_is_too_long_is_not_read_to_its_end(pieces, stated, taken):
    seen, sent, count = answered(pieces, stated=stated)
    assert seen == [] and count == taken
    assert [message.get("status") for message in sent] == [413, None]


def test_a_browser_that_goes_in_the_middle_of_a_request_asks_nothing():
    assert answered([b"{", b"}"], cut=True)[:2] == ([], [])


def test_what_is_no_request_passes():
    seen, sent, count = answered([b"x"], kind="lifespan")
    assert (seen, count) == ([], 0) and sent[0]["status"] == 200


def test_every_answer_has_the_rules_for_browsers():
    _, sent, _ = answered([b""], around=_Policy)
    assert sent[0]["headers"] == [(b"a", b"b"), *_HEADERS.items()]
    assert _HEADERS[b"content-security-policy"].decode() == _POLICY
    for rule in ("default-src 'self'", "base-uri 'self'", "form-action 'self'", "frame-ancestors"):
        assert rule in _POLICY
    assert "http" not in _POLICY and "*" not in _POLICY


TITLE = "<script>alert(1)</script>\"' onload='x' \u2028 {{ 7 * 7 }} &lt;b&gt;"


def test_titles_are_text_on_the_page():
    before = Asked((TITLE, TITLE), {})
    entries = (Entry(1, TITLE, 0.5, None), Entry(2, TITLE, 0.25, -1))
    listing = Listing(TITLE, entries, True, ((TITLE, 3),), 0.1, True, 20)
    read = ReadText((TITLE, TITLE), TITLE, 12)
    answer = Answer(replace(before, history=(TITLE,)), before, (listing,), (read,))
    html = render.lists(answer) + render.texts(answer) + render.message(TITLE)
    assert "<script" not in html and "onload='" not in html and "&amp;lt;b&amp;gt;" in html
    assert html.count("&lt;script&gt;") == 1 + 2 + 1 + 2 + 1 + 2 + 1 + 1
