"""Downloads from a server on 127.0.0.1 that breaks off, stalls, forgets and lies as it is told."""

import concurrent.futures
import dataclasses
import errno
import fcntl
import hashlib
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from delrec_jax.data.corpora import transfer
from delrec_jax.data.corpora.download import Resource, fetch
from delrec_jax.errors import UserError

FILE = bytes(range(256)) * 4
OTHER = FILE[::-1]
NAME = "ml-100k.zip"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclasses.dataclass
class Answer:
    """What a request asked for and what it got."""

    range: str | None
    status: int
    sent: int


class Shelf(ThreadingHTTPServer):
    """Serves one file; each entry of the lists is used up by one request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.date = FILE, '"a"', ""
        self.knows_ranges = self.knows_if_range = self.tells_length = True
        self.largest_piece = 10**9  # of an answer to a Range
        self.cuts: list[int | None] = []  # bytes of the answer's body before the connection closes
        self.statuses: list[int] = []  # 200: as usual
        self.stalls: list[bool] = []  # never sends the rest of the body
        self.answers: list[Answer] = []
        self.goes_on, self.wait = threading.Event(), 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{NAME}"

    def resource(self, sha256: str = "") -> Resource:
        return Resource(self.url, NAME, sha256)

    def handle_error(self, request, client_address):
        """A client that hangs up is what some tests want."""


class Handler(BaseHTTPRequestHandler):
    server: Shelf

    def log_message(self, *args):
        pass

    def do_GET(self):
        shelf = self.server
        shelf.goes_on.wait(shelf.wait)
        asked = self.headers.get("Range")
        answer = Answer(asked, shelf.statuses.pop(0) if shelf.statuses else 200, 0)
        shelf.answers.append(answer)
        current = self.headers.get("If-Range") in (shelf.tag, shelf.date)
        start = 0
        heeds = shelf.knows_ranges and (current or not shelf.knows_if_range)
        if answer.status == 200 and asked and heeds:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            answer.status = 206 if start < len(shelf.content) else 416
        self.send_answer(answer, start)

    def send_answer(self, answer: Answer, start: int):
        shelf = self.server
        end = start + shelf.largest_piece if answer.status == 206 else None
        body = shelf.content[start:end] if answer.status in (200, 206) else b"<html>no</html>"
        self.send_response(answer.status)
        if shelf.tells_length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in (("ETag", shelf.tag), ("Last-Modified", shelf.date)):
            if value:
                self.send_header(name, value)
        size = len(shelf.content)
        if answer.status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{size}")
        if answer.status == 416:
            self.send_header("Content-Range", f"bytes */{size}")
        self.end_headers()
        cut = shelf.cuts.pop(0) if shelf.cuts else None
        answer.sent = len(body[:cut])
        self.wfile.write(body[:cut])
        self.wfile.flush()
        if shelf.stalls and shelf.stalls.pop(0):
            shelf.goes_on.wait(5)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    server = Shelf()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.goes_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


def get(shelf: Shelf, directory, checksum: str = "", attempts: int = 3, timeout: float = 5.0):
    return fetch(
        shelf.resource(checksum), directory, attempts=attempts, timeout=timeout, pause=0.001
    )


def names(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


def breaks(shelf: Shelf, directory, cut: int, **kwargs) -> str:
    """A fetch of one attempt that ends after `cut` bytes; its message."""
    shelf.cuts = [cut]
    with pytest.raises(UserError) as caught:
        get(shelf, directory, attempts=1, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("checksum", ["", sha256(FILE), sha256(FILE).upper()])
def test_a_good_file_lies_in_the_cache_beside_its_checksum(shelf, tmp_path, checksum):
    path = get(shelf, tmp_path / "new" / "cache", checksum)
    assert path == tmp_path / "new" / "cache" / NAME
    assert path.read_bytes() == FILE
    assert names(path.parent) == {NAME, f"{NAME}.sha256"}
    assert (path.parent / f"{NAME}.sha256").read_text() == f"{sha256(FILE)}  {NAME}\n"


def test_a_truncated_body_is_completed_with_the_rest_only(shelf, tmp_path):
    shelf.cuts = [400, 300]
    path = get(shelf, tmp_path, sha256(FILE))
    assert path.read_bytes() == FILE
    assert shelf.answers == [
        Answer(None, 200, 400),
        Answer("bytes=400-", 206, 300),
        Answer("bytes=700-", 206, 324),
    ]


def test_a_server_that_gives_small_pieces_is_asked_for_each(shelf, tmp_path):
    shelf.cuts, shelf.largest_piece = [400], 500
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert [answer.sent for answer in shelf.answers] == [400, 500, 124]


def test_an_always_truncated_body_ends_in_an_error_and_the_next_call_goes_on(shelf, tmp_path):
    shelf.cuts = [400, 0, 0]
    with pytest.raises(UserError) as caught:
        get(shelf, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{shelf.url}: broke off 3 times, at last because")
    assert "closed at 400 of 1,024 bytes" in message
    assert "(400 bytes are kept)" in message
    assert "data.manual_dir" in message
    assert NAME not in names(tmp_path)
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert len(shelf.answers) == 4
    assert shelf.answers[-1] == Answer("bytes=400-", 206, 624)


def test_a_wrong_checksum_names_both_and_removes_the_file(shelf, tmp_path):
    shelf.content = OTHER
    with pytest.raises(UserError) as caught:
        get(shelf, tmp_path, sha256(FILE))
    assert f"{shelf.url}: SHA-256 is {sha256(OTHER)}, expected {sha256(FILE)}" in str(caught.value)
    assert names(tmp_path) <= {f"{NAME}.lock"}
    shelf.content = FILE
    assert get(shelf, tmp_path, sha256(FILE)).read_bytes() == FILE
    assert [answer.range for answer in shelf.answers] == [None, None]


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_file_that_is_not_there_is_asked_for_once(shelf, tmp_path, status):
    shelf.statuses = [status]
    with pytest.raises(UserError) as caught:
        get(shelf, tmp_path)
    assert f"{shelf.url}: the server answers {status}" in str(caught.value)
    assert "set data.manual_dir" in str(caught.value)
    assert len(shelf.answers) == 1
    assert NAME not in names(tmp_path)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(shelf, tmp_path, status):
    shelf.statuses = [status, status]
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert [answer.status for answer in shelf.answers] == [status, status, 200]


def test_pauses_between_attempts_double(shelf, tmp_path, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", pauses.append)
    shelf.statuses = [500] * 4
    with pytest.raises(
        UserError, match="broke off 4 times, at last because the server answers 500"
    ):
        fetch(shelf.resource(), tmp_path)
    assert pauses == [1, 2, 4]


def test_a_stalled_connection_is_broken_off_and_taken_up_again(shelf, tmp_path):
    shelf.cuts, shelf.stalls = [400], [True]
    assert get(shelf, tmp_path, timeout=0.2).read_bytes() == FILE
    assert [answer.range for answer in shelf.answers] == [None, "bytes=400-"]


def test_a_server_that_never_answers_is_named(shelf, tmp_path):
    shelf.wait, begun = 5, time.monotonic()
    with pytest.raises(UserError, match=r"broke off 2 times.* timed out"):
        get(shelf, tmp_path, attempts=2, timeout=0.1)
    assert time.monotonic() - begun < 2


def test_a_closed_port_is_named(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{NAME}"
    with pytest.raises(UserError, match=r"broke off 2 times.*the connection failed: .*refused"):
        fetch(Resource(url, NAME), tmp_path, attempts=2, pause=0.001)


def test_a_server_without_ranges_starts_again(shelf, tmp_path):
    shelf.knows_ranges, shelf.cuts = False, [400]
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert shelf.answers == [Answer(None, 200, 400), Answer("bytes=400-", 200, 1024)]


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_that_changed_in_between_is_not_spliced(shelf, tmp_path, knows_if_range):
    breaks(shelf, tmp_path, 400)
    shelf.content, shelf.tag, shelf.knows_if_range = OTHER + b"!", '"b"', knows_if_range
    assert get(shelf, tmp_path).read_bytes() == OTHER + b"!"
    assert shelf.answers[1].range == "bytes=400-"


def test_a_server_that_gives_another_part_is_not_believed(shelf, tmp_path, monkeypatch):
    send = Handler.send_answer
    monkeypatch.setattr(
        Handler,
        "send_answer",
        lambda self, answer, start: send(self, answer, max(start - 100, 0)),
    )
    shelf.cuts = [400]
    assert get(shelf, tmp_path).read_bytes() == FILE


@pytest.mark.parametrize(
    ("tag", "date", "resumes"),
    [
        ('W/"a"', "", False),
        ("", "", False),
        ("", "Fri, 20 Nov 2026 10:00:00 GMT", True),
        ('W/"a"', "Fri, 20 Nov 2026 10:00:00 GMT", True),
    ],
)
def test_only_a_version_that_can_be_told_apart_is_continued(shelf, tmp_path, tag, date, resumes):
    shelf.tag, shelf.date = tag, date
    assert f"({400 if resumes else 0} bytes are kept)" in breaks(shelf, tmp_path, 400)
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert shelf.answers[1].range == ("bytes=400-" if resumes else None)


def test_the_part_of_another_address_is_not_continued(shelf, tmp_path):
    breaks(shelf, tmp_path, 400)
    moved = Resource(shelf.url.replace(NAME, "2/" + NAME), NAME)
    assert fetch(moved, tmp_path, pause=0.001).read_bytes() == FILE
    assert shelf.answers[1].range is None


@pytest.mark.parametrize(("kept", "bodies"), [(FILE, 0), (FILE + b"longer", 1024)])
def test_a_part_with_nothing_left_to_fetch(shelf, tmp_path, kept, bodies):
    breaks(shelf, tmp_path, 400)
    (tmp_path / f"{NAME}.part").write_bytes(kept)
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert sum(answer.sent for answer in shelf.answers[1:] if answer.status != 416) == bodies


def test_a_file_of_unknown_length_is_taken(shelf, tmp_path):
    shelf.tells_length = False
    assert get(shelf, tmp_path).read_bytes() == FILE


@pytest.mark.parametrize("checksum", ["", sha256(FILE), sha256(FILE).upper()])
def test_a_cached_file_makes_no_request(shelf, tmp_path, checksum):
    get(shelf, tmp_path, checksum)
    assert get(shelf, tmp_path, checksum).read_bytes() == FILE
    assert len(shelf.answers) == 1


@pytest.mark.parametrize("checksum", ["", sha256(FILE)])
@pytest.mark.parametrize("altered", [FILE[:-1], OTHER])
def test_an_altered_cached_file_is_noticed(shelf, tmp_path, checksum, altered):
    path = get(shelf, tmp_path, checksum)
    path.write_bytes(altered)
    with pytest.raises(UserError) as caught:
        get(shelf, tmp_path, checksum)
    assert f"{path}: changed since it was downloaded" in str(caught.value)
    assert f"(SHA-256 is {sha256(altered)}, expected {sha256(FILE)})" in str(caught.value)
    assert path.read_bytes() == altered
    assert len(shelf.answers) == 1
    path.unlink()
    assert get(shelf, tmp_path, checksum).read_bytes() == FILE


def test_a_stranger_in_the_cache_is_noticed(shelf, tmp_path):
    (tmp_path / NAME).write_bytes(FILE)
    with pytest.raises(UserError, match=r"no note of its download.*delete it"):
        get(shelf, tmp_path)
    assert get(shelf, tmp_path, sha256(FILE)).read_bytes() == FILE
    assert shelf.answers == []


def test_a_file_at_hand_needs_no_network(shelf, tmp_path):
    for checksum in ("", sha256(FILE)):
        (tmp_path / NAME).write_bytes(FILE)
        path = fetch(shelf.resource(checksum), tmp_path / "cache", manual_dir=tmp_path)
        assert path == tmp_path / NAME
    assert shelf.answers == []
    assert names(tmp_path) == {NAME}


def test_a_file_that_is_not_at_hand_is_named(shelf, tmp_path):
    with pytest.raises(UserError) as caught:
        fetch(shelf.resource(), tmp_path / "cache", manual_dir=tmp_path)
    for part in (str(tmp_path), NAME, shelf.url, "data.manual_dir"):
        assert part in str(caught.value)
    assert shelf.answers == []


def test_a_damaged_file_at_hand_is_named_and_left(shelf, tmp_path):
    (tmp_path / NAME).write_bytes(OTHER)
    with pytest.raises(UserError) as caught:
        fetch(shelf.resource(sha256(FILE)), tmp_path / "cache", manual_dir=tmp_path)
    for part in (str(tmp_path / NAME), sha256(OTHER), sha256(FILE), shelf.url):
        assert part in str(caught.value)
    assert (tmp_path / NAME).read_bytes() == OTHER
    assert shelf.answers == []


class FullDisk(io.FileIO):
    """A file that takes 100 bytes more and then fails."""

    code = errno.ENOSPC

    def write(self, data) -> int:
        super().write(bytes(data)[:100])
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_takes_no_more_is_named_and_the_part_stays(shelf, tmp_path, monkeypatch, code):
    breaks(shelf, tmp_path, 400)
    usual = Path.open

    def opened(self, mode="r", *args, **kwargs):
        return FullDisk(self, mode) if mode == "ab" else usual(self, mode, *args, **kwargs)

    monkeypatch.setattr(FullDisk, "code", code)
    with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
        patch.setattr(Path, "open", opened)
        get(shelf, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / NAME}: {os.strerror(code)}; make room")
    assert len(shelf.answers) == 2, "a full disk is no reason to ask the server again"
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert shelf.answers[-1] == Answer("bytes=500-", 206, 524)


def test_a_file_in_the_place_of_the_cache_is_named(shelf, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="cache: File exists; make room"):
        get(shelf, tmp_path / "cache")


def test_ctrl_c_keeps_what_has_come(shelf, tmp_path, monkeypatch):
    def pressed(self, count):
        raise KeyboardInterrupt

    shelf.content = FILE * 2000
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(transfer._Bar, "advance", pressed)
        get(shelf, tmp_path)
    kept = (tmp_path / f"{NAME}.part").stat().st_size
    assert 0 < kept < len(shelf.content)
    assert get(shelf, tmp_path).read_bytes() == shelf.content
    assert shelf.answers[1].range == f"bytes={kept}-"


def test_two_at_once_download_once(shelf, tmp_path, capfd):
    shelf.wait = 60  # not what is waited for: on a busy machine a thread may start late
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(get, shelf, tmp_path) for _ in range(2)]
        # The second has said that it waits before the server gives the first its file.
        while not (said := capfd.readouterr().err).count("waiting"):
            assert not any(run.done() for run in runs), said
            time.sleep(0.005)
        shelf.goes_on.set()
        assert [run.result().read_bytes() for run in runs] == [FILE, FILE]
    assert len(shelf.answers) == 1
    assert names(tmp_path) == {NAME, f"{NAME}.sha256"}


def test_a_cached_file_waits_for_no_lock(shelf, tmp_path):
    path = get(shelf, tmp_path)
    with (tmp_path / f"{NAME}.lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = pool.submit(get, shelf, tmp_path)
        done, _ = concurrent.futures.wait([run], timeout=2)
        fcntl.flock(lock, fcntl.LOCK_UN)
    assert done, "it waited for another process although nothing was left to download"
    assert run.result() == path


def test_a_terminal_gets_a_bar_and_a_log_gets_lines(shelf, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(transfer, "_PLAIN_EVERY_SECONDS", 0.0)
    get(shelf, tmp_path / "log")
    lines = f"downloading {shelf.url}\n  {NAME}: 1,024 of 1,024 bytes\n"
    assert capsys.readouterr().err == lines
    monkeypatch.setenv("FORCE_COLOR", "1")
    get(shelf, tmp_path / "terminal")
    shown = capsys.readouterr().err
    assert "1.0/1.0 kB" in shown
    assert "━━━" in shown
