"""Downloads from a server on 127.0.0.1 that breaks off, stalls, forgets and lies on demand, and from a stand-in for the hub."""

import errno
import hashlib
import io
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from delrec_jax.data.corpora import download
from delrec_jax.data.corpora.download import Resource, fetch
from delrec_jax.errors import UserError

FILE = bytes(range(256)) * 1024
OTHER = FILE[::-1]
CUT = 1 << 17
NAME = "ml-100k.zip"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Shelf(ThreadingHTTPServer):
    """Serves one file; each entry of the lists is used up by one request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.date = FILE, '"a"', ""
        self.knows_ranges = self.knows_if_range = True
        self.shift, self.most = 0, 10**9  # bytes that an answer to a Range begins early, and has
        self.cuts: list[int | None] = []  # bytes of the answer's body before the connection closes
        self.statuses: list[int] = []
        self.stalls: list[bool] = []  # never sends the rest of the body
        self.answers: list[tuple[str | None, int, int]] = []  # Range, status, bytes sent
        self.paths: list[str] = []
        self.goes_on, self.wait = threading.Event(), 0.0
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.url = f"{self.endpoint}/{NAME}"


class Handler(BaseHTTPRequestHandler):
    server: Shelf

    def log_message(self, *args):
        pass

    def do_GET(self):
        shelf = self.server
        shelf.paths.append(self.path)
        assert NAME not in self.path or self.headers["Accept-Encoding"] == "identity"
        shelf.goes_on.wait(shelf.wait)
        asked, start = self.headers.get("Range"), 0
        status = shelf.statuses.pop(0) if shelf.statuses else 200
        current = self.headers.get("If-Range") in (shelf.tag, shelf.date)
        if asked and shelf.knows_ranges and (current or not shelf.knows_if_range):
            start = int(asked.removeprefix("bytes=").removesuffix("-")) - shelf.shift
            status = 206 if start < len(shelf.content) else 416
        end = start + shelf.most if status == 206 else None
        body = shelf.content[start:end] if status in (200, 206) else b"<html>no</html>"
        size = len(shelf.content)
        place = {206: f"bytes {start}-{start + len(body) - 1}/{size}", 416: f"bytes */{size}"}
        headers = {"ETag": shelf.tag, "Last-Modified": shelf.date, "X-Repo-Commit": COMMIT}
        headers |= {"Content-Length": str(len(body)), "Content-Range": place.get(status)}
        sent = body[: shelf.cuts.pop(0) if shelf.cuts else None] if self.command == "GET" else b""
        shelf.answers.append((asked, status, len(sent)))
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)
        self.wfile.flush()
        if shelf.stalls and shelf.stalls.pop(0):
            shelf.goes_on.wait(5)

    do_HEAD = do_GET  # the hub is asked like that


@pytest.fixture
def shelf(monkeypatch) -> Iterator[Shelf]:
    monkeypatch.setattr(download, "_PAUSE", 0.001)
    server = Shelf()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.goes_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


def get(shelf: Shelf, directory: Path, checksum: str = "") -> Path:
    return fetch(Resource(shelf.url, NAME, checksum), directory)


def failure(shelf: Shelf, directory: Path, checksum: str = "", **given) -> str:
    with pytest.raises(UserError) as caught:
        fetch(Resource(shelf.url, NAME, checksum), directory, **given)
    return str(caught.value)


def has(message: str, *parts: str) -> None:
    assert [part for part in parts if part not in message] == []


def names(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


def half(shelf: Shelf, directory: Path) -> str:
    """A fetch that breaks off for good in the middle of the file; its message."""
    shelf.cuts = [CUT, 0, 0, 0]
    message = failure(shelf, directory)
    shelf.answers.clear()
    return message


@pytest.mark.parametrize("checksum", ["", sha256(FILE), sha256(FILE).upper()])
def test_a_new_file_is_kept_and_a_cached_one_makes_no_request(shelf, tmp_path, checksum):
    path = get(shelf, tmp_path / "new" / "cache", checksum)
    assert path == tmp_path / "new" / "cache" / NAME
    assert path.read_bytes() == FILE
    assert names(path.parent) - {f"{NAME}.lock", f"{NAME}.sha256"} == {NAME}
    if not checksum:
        assert (path.parent / f"{NAME}.sha256").read_text() == f"{sha256(FILE)}  {NAME}\n"
    assert get(shelf, path.parent, checksum) == path
    assert len(shelf.answers) == 1


@pytest.mark.parametrize(
    ("settings", "answers"),
    [
        (
            {"cuts": [CUT, 1000]},
            [(CUT, 206, 1000), (CUT + 1000, 206, len(FILE) - CUT - 1000)],
        ),
        ({"cuts": [CUT], "most": CUT // 2}, [(CUT, 206, CUT // 2), (CUT * 3 // 2, 206, CUT // 2)]),
        ({"cuts": [CUT], "knows_ranges": False}, [(CUT, 200, len(FILE))]),
    ],
    ids=["breaks twice", "sends small pieces", "knows no ranges"],
)
def test_a_broken_download_is_completed_with_the_rest_only(shelf, tmp_path, settings, answers):
    vars(shelf).update(settings)
    assert get(shelf, tmp_path, sha256(FILE)).read_bytes() == FILE
    ranges = [(f"bytes={start}-", status, sent) for start, status, sent in answers]
    assert shelf.answers == [(None, 200, CUT), *ranges]


def test_a_download_that_always_breaks_is_an_error_and_the_next_call_continues_it(shelf, tmp_path):
    message = half(shelf, tmp_path)
    assert message.startswith(f"{shelf.url}: broke off 4 times, in the end by: ")
    assert "data.manual_dir" in message and "\n" not in message
    assert NAME not in names(tmp_path)
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert shelf.answers == [(f"bytes={CUT}-", 206, len(FILE) - CUT)]


def test_a_wrong_checksum_names_both_and_removes_the_file(shelf, tmp_path):
    shelf.content = OTHER
    message = failure(shelf, tmp_path, sha256(FILE))
    has(message, shelf.url, sha256(OTHER), sha256(FILE), "data.manual_dir")
    assert names(tmp_path) <= {f"{NAME}.lock"}
    shelf.content = FILE
    assert get(shelf, tmp_path, sha256(FILE)).read_bytes() == FILE
    assert [answer[0] for answer in shelf.answers] == [None, None]


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refused_file_is_asked_for_once(shelf, tmp_path, status):
    shelf.statuses = [status]
    message = failure(shelf, tmp_path)
    assert f"{shelf.url}: the server refuses it ({status}" in message
    assert "set data.manual_dir" in message
    assert len(shelf.answers) == 1
    assert NAME not in names(tmp_path)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again_after_doubled_pauses(
    shelf, tmp_path, monkeypatch, status
):
    pauses: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    shelf.statuses = [status] * 3
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert [answer[1] for answer in shelf.answers] == [status, status, status, 200]
    assert [pause for pause in pauses if 0 < pause < 0.005] == [0.001, 0.002, 0.004]


def test_a_stalled_connection_is_given_up_and_continued(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_SILENCE", 0.2)
    shelf.cuts, shelf.stalls = [CUT + 100], [True]
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert [answer[0] for answer in shelf.answers] == [None, f"bytes={CUT + 100}-"]


@pytest.mark.parametrize(
    "changes",
    [
        {"content": OTHER + b"!", "tag": '"b"'},
        {"content": OTHER + b"!", "tag": '"b"', "knows_if_range": False},
        {"shift": 100},
    ],
    ids=["True", "False", "another part"],
)
def test_a_file_that_changed_in_between_is_not_spliced(shelf, tmp_path, changes):
    half(shelf, tmp_path)
    vars(shelf).update(changes)
    assert get(shelf, tmp_path).read_bytes() == shelf.content
    assert shelf.answers[0][0] == f"bytes={CUT}-"


@pytest.mark.parametrize("tag", ["", 'W/"a"'])
@pytest.mark.parametrize("date", ["", "Fri, 20 Nov 2026 10:00:00 GMT"])
def test_only_a_version_with_a_strong_name_is_continued(shelf, tmp_path, tag, date):
    shelf.tag, shelf.date = tag, date
    half(shelf, tmp_path)
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert shelf.answers[0][0] == (f"bytes={CUT}-" if date else None)


@pytest.mark.parametrize(("kept", "bodies"), [(FILE, 0), (FILE + b"longer", len(FILE))])
def test_a_part_with_nothing_left_to_download(shelf, tmp_path, kept, bodies):
    half(shelf, tmp_path)
    (tmp_path / f"{NAME}.part").write_bytes(kept)
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert sum(sent for _, status, sent in shelf.answers if status != 416) == bodies


@pytest.mark.parametrize("checksum", ["", sha256(FILE)])
@pytest.mark.parametrize("changed", [FILE[:-1], OTHER])
def test_a_changed_cached_file_is_reported_and_left(shelf, tmp_path, checksum, changed):
    path = get(shelf, tmp_path, checksum)
    path.write_bytes(changed)
    message = failure(shelf, tmp_path, checksum)
    assert f"{path}: changed since it was downloaded" in message
    assert f"(SHA-256 is {sha256(changed)}, expected {sha256(FILE)})" in message
    assert path.read_bytes() == changed
    assert len(shelf.answers) == 1
    path.unlink()
    assert get(shelf, tmp_path, checksum).read_bytes() == FILE


def test_a_file_that_was_not_downloaded_is_reported_unless_its_checksum_is_known(shelf, tmp_path):
    (tmp_path / NAME).write_bytes(FILE)
    assert "no note of its download); delete it" in failure(shelf, tmp_path)
    assert get(shelf, tmp_path, sha256(FILE)).read_bytes() == FILE
    assert shelf.answers == []


def test_files_of_the_users_own_folder(shelf, tmp_path):
    given = {"manual_dir": tmp_path}
    message = failure(shelf, tmp_path / "cache", **given)
    has(message, str(tmp_path), NAME, shelf.url, "data.manual_dir")
    (tmp_path / NAME).write_bytes(OTHER)
    message = failure(shelf, tmp_path / "cache", sha256(FILE), **given)
    has(message, str(tmp_path / NAME), sha256(OTHER), sha256(FILE), shelf.url)
    for checksum in ("", sha256(OTHER)):
        path = fetch(Resource(shelf.url, NAME, checksum), tmp_path / "cache", **given)
        assert path == tmp_path / NAME
    assert names(tmp_path) == {NAME} and path.read_bytes() == OTHER
    assert shelf.answers == []


class FullDisk(io.FileIO):
    """A file that takes 100 more bytes and then fails."""

    def write(self, data) -> int:
        super().write(bytes(data)[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_of_the_users_own_may_be_unpacked(shelf, tmp_path):
    packed = Resource(f"{shelf.url}/reviews.jsonl.gz", "reviews.jsonl.gz")
    (tmp_path / "reviews.jsonl").write_text("{}")
    assert fetch(packed, tmp_path / "cache", manual_dir=tmp_path).name == "reviews.jsonl"
    (tmp_path / "reviews.jsonl.gz").write_bytes(b"")
    assert fetch(packed, tmp_path / "cache", manual_dir=tmp_path).name == "reviews.jsonl.gz"


def test_a_disk_that_cannot_be_written_is_named_and_the_part_stays(shelf, tmp_path, monkeypatch):
    half(shelf, tmp_path)
    usual = Path.open

    def opened(self, mode="r", *args, **kwargs):
        return FullDisk(self, mode) if mode == "ab" else usual(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        message = failure(shelf, tmp_path)
    assert message.startswith(f"{tmp_path / NAME}: No space left on device; make room")
    assert len(shelf.answers) == 1, "a full disk is no reason to ask the server again"
    assert get(shelf, tmp_path).read_bytes() == FILE
    assert shelf.answers[-1][0] == f"bytes={CUT + 100}-"


def test_a_file_in_the_place_of_the_cache_is_named(shelf, tmp_path):
    (tmp_path / "cache").write_text("")
    assert "cache: File exists; make room" in failure(shelf, tmp_path / "cache")


def test_two_at_once_download_once(shelf, tmp_path, monkeypatch):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    monkeypatch.setattr(pooch.get_logger(), "handlers", [handler])
    shelf.wait = 60
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(get, shelf, tmp_path) for _ in range(2)]
        while sum("this one waits" in line for line in said) < 2:
            assert not any(run.done() for run in runs)
            time.sleep(0.005)
        time.sleep(0.2)  # without a lock, the second would ask the server now
        shelf.goes_on.set()
        assert [run.result().read_bytes() for run in runs] == [FILE, FILE]
    assert len(shelf.answers) == 1


# --- files of the hub

URL = f"hf://datasets/some-one/games@{COMMIT}/steam/"
FETCH = """
import sys
from pathlib import Path
from delrec_jax.data.corpora.download import Resource, fetch
from delrec_jax.errors import UserError
try:
    print(fetch(Resource(sys.argv[2], Path(sys.argv[2]).name), Path(sys.argv[1])))
except UserError as error:
    print("UserError", error)
"""


def fetched(endpoint: str, folder: Path, file: str, **environment) -> list[str]:
    """Fetches in a process of its own: huggingface_hub reads the environment once, on import."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    run = subprocess.run(
        [sys.executable, "-c", FETCH, str(folder / "cache"), URL + file],
        env={**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_a_file_of_the_hub_is_cached_like_any_other(shelf, tmp_path):
    path = tmp_path / "cache" / "Val_data.df"
    assert fetched(shelf.endpoint, tmp_path, path.name) == [str(path)]
    assert path.read_bytes() == FILE
    assert names(path.parent) == {path.name, f"{path.name}.lock", f"{path.name}.sha256"}
    assert f"/datasets/some-one/games/resolve/{COMMIT}/steam/{path.name}" in shelf.paths
    asked = len(shelf.paths)
    resource = Resource(URL + path.name, path.name)
    assert fetch(resource, path.parent) == path
    path.write_bytes(OTHER)
    with pytest.raises(UserError, match=r"Val_data\.df: changed since it was downloaded"):
        fetch(resource, path.parent)
    assert len(shelf.paths) == asked


def test_a_full_disk_is_not_blamed_on_the_hub(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(UserError, match=r"Val_data\.df: No space left on device; make room"):
        fetch(Resource(f"{URL}Val_data.df", "Val_data.df"), tmp_path)


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_a_file_that_the_hub_does_not_give_is_named(shelf, tmp_path, environment):
    shelf.statuses = [404] * 9
    (line,) = fetched(shelf.endpoint, tmp_path, "Val_data.df", **environment)
    assert line.startswith(f"UserError {URL}Val_data.df: the hub did not give it (")
    assert line.endswith("set data.manual_dir to its folder")
    assert names(tmp_path / "cache") == {"Val_data.df.lock"}
