"""`delrec app` refuses in one line what it cannot serve, and what it serves names and loads nothing from elsewhere."""

import re
import socket
import sys

import pytest
from tiny_storefront import delrec, open_workspace

from delrec_jax.app import command
from delrec_jax.app.answers import Answers
from delrec_jax.app.searching import SHOWN
from delrec_jax.errors import UserError
from delrec_jax.serving.recommender import Recommender

TITLE = "app"


def refused(capsys, *arguments):
    """What the command says as it refuses."""
    with pytest.raises(SystemExit) as ended:
        delrec("app", *arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_without_gradio_the_extra_is_named(tiny_run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    line = refused(capsys, f"--workdir={tiny_run}")
    assert "gradio, which is not installed" in line and 'pip install ".[app]"' in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir is missing"),
        (["--workdir=nowhere"], "nowhere/config.json is not there: give the --workdir of a run"),
        (["--workdir=nowhere", "--port=70000"], "port"),
        (["--workdir=nowhere", "--port=http"], "port"),
    ],
)
def test_flags_are_checked(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)


def test_a_run_without_a_teacher_is_refused(tiny_run, tmp_path, capsys):
    pytest.importorskip("gradio", reason="needs the extra `app`")
    (tmp_path / "config.json").write_bytes((tiny_run / "config.json").read_bytes())
    assert "has no finished run" in refused(capsys, f"--workdir={tmp_path}")


def test_a_taken_port_or_a_strange_host_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}: cannot be listened at .*--port=0"):
            command.bound("127.0.0.1", port)
    with pytest.raises(UserError, match="--host=no such host --port=0"):
        command.bound("no such host", 0)
    for host in ("a..b", "x" * 64):
        with pytest.raises(UserError, match="give a name or address of this machine"):
            command.bound(host, 0)


def test_a_free_port_is_bound_where_it_was_asked_for():
    with command.bound("127.0.0.1", 0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1" and port > 0
        assert command._address(listening) == f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(tiny_run):
    pytest.importorskip("gradio", reason="needs the extra `app`")
    from starlette.testclient import TestClient

    answers = Answers(Recommender(open_workspace(tiny_run)), "SASRec")
    with TestClient(command.site(answers, TITLE, "127.0.0.1"), "http://127.0.0.1") as client:
        yield client


# `og:` tags are for other sites that make a link to this one; no browser loads them.
OUTSIDE = re.compile(r"""(?:src|href|action|@import|url\()\s*=?\s*["'(]?\s*(?:https?:)?//(?!127)""")


@pytest.mark.parametrize("place", ["/", "/config", "/theme.css", "/gradio_api/info"])
def test_pages_load_nothing_from_elsewhere_and_name_no_folder(client, place, tiny_run):
    assert OUTSIDE.search("<link href='https://fonts.example'>")
    response = client.get(place)
    assert response.status_code == 200
    assert not OUTSIDE.search(response.text) and "googleapis" not in response.text
    for folder in (str(tiny_run), sys.prefix, command.__file__.rpartition("/")[0]):
        assert folder not in response.text
    assert response.headers["content-security-policy"].startswith("default-src 'self'; ")


def test_gradio_keeps_to_itself(client):
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False
    assert not config.get("footer_links") and not config.get("run_history")
    assert client.get("/gradio_api/file=pyproject.toml").status_code == 403
    files = {"files": ("x", b"more than one byte")}
    assert client.post("/gradio_api/upload", files=files).status_code == 413
    assert client.get("/gradio_api/info").json() == {
        "named_endpoints": {},
        "unnamed_endpoints": {},
    }


def test_other_names_of_this_machine_are_not_answered(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_the_first_matches_are_sent_and_not_the_catalogue(client, tiny_run):
    text, titles = client.get("/config").text, Recommender(open_workspace(tiny_run)).titles
    assert [title in text for title in titles] == [item < SHOWN for item in range(len(titles))]


def called(client, number, data, event=None):
    """What Gradio's server answers to a call of the page's function of this number, whatever a browser sends."""
    call = {"data": data, "event_data": event, "fn_index": number, "session_hash": "wild"}
    joined = client.post("/gradio_api/queue/join", json=call)
    if joined.status_code != 200:
        return joined.text
    return client.get("/gradio_api/queue/data", params={"session_hash": "wild"}).text


# Functions by their number: 0 searches, 1 adds the first match, 2 adds a picked title, 3 recommends.
@pytest.mark.parametrize(
    ("number", "data", "event", "said"),
    [
        (3, [None, [], False, ["teacher"], 5, None], None, "The history is empty"),
        (3, [None, ["0", "7"], False, ["teacher"], 5, None], None, "error"),
        (3, [None, [], False, ["/etc/passwd"], 5, None], None, "error"),
        (3, [None, [], False, ["teacher"], "many", None], None, "The history is empty"),
        (3, ["x"], None, "error"),
        (2, [None, []], {"value": 10**30, "index": 0}, "not in the catalogue"),
        (2, [None, []], {"value": "../x", "index": 0}, "not in the catalogue"),
        (2, [None, []], None, "error"),
        (1, ["no such title", None, []], None, "No title has these words"),
        (0, [{"a": [1]}], None, "Titles: 0"),
    ],
)
def test_whatever_is_sent_gets_an_answer_without_a_trace(client, number, data, event, said):
    text = called(client, number, data, event)
    assert said in text and "process_completed" in text
    for secret in ("Traceback", 'File \\"', ".py", sys.prefix, "site-packages"):
        assert secret not in text
