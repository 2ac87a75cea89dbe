"""No server makes a download leave https, or go on without end."""

import io
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from local_server import answering

from delrec_jax.data.corpora import amazon, download, movielens, steam
from delrec_jax.data.corpora.download import Resource, fetch
from delrec_jax.errors import UserError

FILE = bytes(range(256)) * 64


class Handler(BaseHTTPRequestHandler):
    """Redirects, or sends the file in the server's pieces and pauses, with or without its length."""

    def do_GET(self):
        server = self.server
        server.paths.append(self.path)
        if server.targets:
            self.send_response(302)
            self.send_header("Location", server.targets.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if server.length is not None:
            self.send_header("Content-Length", str(server.length))
        self.end_headers()
        for start in range(0, len(FILE), server.piece):
            try:
                self.wfile.write(FILE[start : start + server.piece])
                self.wfile.flush()
            except OSError:
                return  # the client has seen enough
            time.sleep(server.pause)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE", 0.001)
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as found:
        found.daemon_threads = True
        found.url = f"http://127.0.0.1:{found.server_port}/a.zip"
        found.paths, found.targets = [], []
        found.length, found.piece, found.pause = len(FILE), len(FILE), 0
        yield found


def refusal(url, folder):
    with pytest.raises(UserError) as caught:
        fetch(Resource(url, "a.zip"), folder)
    message = str(caught.value)
    assert message.startswith(url) and "\n" not in message
    assert not (folder / "a.zip").exists()
    return message


def test_every_registered_file_is_fetched_over_https():
    found = [
        *(one for edition in ("100k", "1m") for one in movielens.resources(edition)),
        *(one for edition in ("llara", "ucsd") for one in steam.resources(edition)),
        *(
            one
            for edition in ("2014", "2018")
            for one in amazon.resources(edition, "Office_Products")
        ),
    ]
    assert len(found) > 8
    for resource in found:
        assert resource.url.startswith(("https://", "hf://datasets/")), resource


@pytest.mark.parametrize("url", ["http://files.example/a.zip", "ftp://files.example/a.zip"])
def test_an_address_that_is_not_https_is_not_asked(tmp_path, url, monkeypatch):
    monkeypatch.setattr(requests, "get", None)
    assert "neither https nor http to this machine" in refusal(url, tmp_path)


def test_a_redirect_on_this_machine_is_followed(server, tmp_path):
    server.targets = ["/b.zip", f"{server.url}?c"]
    assert fetch(Resource(server.url, "a.zip"), tmp_path).read_bytes() == FILE
    assert server.paths == ["/a.zip", "/b.zip", "/a.zip?c"]


@pytest.mark.parametrize("target", ["http://files.example/a", "file:///etc/hostname", "ftp://x/a"])
def test_a_redirect_elsewhere_is_refused(server, tmp_path, target):
    server.targets = [target]
    assert f"leads to '{target}', which is neither https" in refusal(server.url, tmp_path)
    assert len(server.paths) == 1


def test_a_redirect_from_https_to_http_is_refused_even_to_this_machine(
    server, tmp_path, monkeypatch
):
    """A server over https is not at hand in a test: its answer is made here."""
    answer = requests.Response()
    answer.status_code, answer.headers["Location"] = 301, server.url
    answer.raw = io.BytesIO()
    monkeypatch.setattr(requests, "get", lambda url, **_: answer)
    message = refusal("https://files.example/a.zip", tmp_path)
    assert f"leads to '{server.url}', which is neither https" in message
    assert server.paths == []


def test_redirects_end(server, tmp_path):
    server.targets = ["/again"] * 1000
    assert "redirected 10 times" in refusal(server.url, tmp_path)
    assert len(server.paths) == 4 * 10  # attempts


@pytest.mark.parametrize("length", [len(FILE), None], ids=["stated", "not stated"])
def test_a_file_above_the_limit_is_refused(server, tmp_path, monkeypatch, length):
    monkeypatch.setattr(download, "_LARGEST", len(FILE) - 1)
    server.length = length
    assert "more than 16,383 bytes, which no file" in refusal(server.url, tmp_path)
    assert len(server.paths) == 1
    monkeypatch.setattr(download, "_LARGEST", len(FILE))
    (tmp_path / "a.zip.part").unlink()
    assert fetch(Resource(server.url, "a.zip"), tmp_path).read_bytes() == FILE


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_SILENCE", 0.5)
    monkeypatch.setattr(download, "_SLOWEST", 1 << 20)
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    server.piece, server.pause = 1, 0.05
    assert "less than 1,048,576 bytes a second came" in refusal(server.url, tmp_path)
    assert 0 < (tmp_path / "a.zip.part").stat().st_size < 1000


def test_a_download_has_an_end_in_time(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_LONGEST", 0.0)
    assert "not complete after 0 hours; run again to continue" in refusal(server.url, tmp_path)
    monkeypatch.undo()
    assert fetch(Resource(server.url, "a.zip"), tmp_path).read_bytes() == FILE
