"""A bucket on 127.0.0.1 that speaks the part of Cloud Storage's JSON API that workdirs need, and fails on demand.

Source: https://cloud.google.com/storage/docs/json_api/v1 (objects: list, get, insert, delete; request preconditions).
"""

import base64
import json
import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
import pytest
from local_server import answering

BUCKET = "fake-bucket"
URL = f"gs://{BUCKET}/runs/one"
PREFIX = "runs/one/"
PAGE = 50  # objects per answer of a list


class FakeBucket(ThreadingHTTPServer):
    """Its objects, what was asked of it, and which requests it refuses."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = {}  # name -> (content, generation, updated)
        self.log = []  # (put | get | delete | list | look, name below the workdir), in the order of the answers
        self.refusals = []  # [verb, pattern of the name, status, times left]
        self.cuts = []  # bytes of a download before the connection closes, each for one download
        self.before = lambda verb, name: None  # called before a request has any effect
        self.sessions = {}
        self.generation = 100
        self.lock = threading.RLock()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that closes its connection early, as one that is killed, is no news."""

    def names(self):
        """Names below the workdir."""
        return {name.removeprefix(PREFIX) for name in self.objects if name.startswith(PREFIX)}

    def content(self, name):
        return self.objects[PREFIX + name][0]

    def store(self, name, content):
        """Writes an object as somebody else would."""
        with self.lock:
            self.generation += 1
            self.objects[PREFIX + name] = (content, self.generation, datetime.now(UTC))

    def store_folder(self, folder):
        """Writes all files of a finished workdir but hidden ones."""
        for path in Path(folder).rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not name.startswith("."):
                self.store(name, path.read_bytes())

    def age(self, name, seconds):
        """Makes an object older than it is."""
        content, generation, updated = self.objects[PREFIX + name]
        self.objects[PREFIX + name] = (content, generation, updated - timedelta(seconds=seconds))

    def refuse(self, verb, pattern, status, times=10**9):
        self.refusals.append([verb, pattern, status, times])

    def did(self, *verbs):
        """What was asked of these verbs, the lease's own requests excepted."""
        return [(verb, n) for verb, n in self.log if verb in verbs and n != "lease.json"]

    def refusal(self, verb, name):
        with self.lock:
            for entry in self.refusals:
                if entry[0] == verb and re.fullmatch(entry[1], name) and entry[3] > 0:
                    entry[3] -= 1
                    return entry[2]
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeBucket

    def log_message(self, *args):
        pass

    def do_GET(self):
        place, query = self._asked()
        if not self._in_bucket(place):
            return
        if place.endswith("/o"):
            self._list(query)
            return
        name = unquote(place.rpartition("/o/")[2])
        media = "alt" in query and query["alt"] == "media"
        if self._refused("get" if media else "look", name):
            return
        found = self.server.objects.get(name)
        if found is None or query.get("generation") not in (None, str(found[1])):
            self._fail(404, f"No such object: {name}")
        elif media:
            self._media(name, *found)
        else:
            self._answer(json.dumps(_resource(name, *found)).encode())

    def do_POST(self):
        place, query = self._asked()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._in_bucket(place):
            return
        if query["uploadType"] == "resumable":
            name = json.loads(body)["name"]
            if not self._refused("put", name):
                key = str(len(self.server.sessions))
                self.server.sessions[key] = [name, query, b""]
                self.send_response(200)
                self.send_header("Location", f"{self.server.endpoint}/session/{key}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            return
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip("\"'").encode()
        _, facts, rest = body.split(b"--" + boundary, 2)
        facts = json.loads(facts.partition(b"\r\n\r\n")[2])
        content = rest.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--" + boundary)[0]
        if not self._refused("put", facts["name"]):
            self._insert(facts["name"], query, content, facts.get("crc32c"))

    def do_PUT(self):
        key = self.path.rpartition("/")[2]
        session = self.server.sessions[key]
        session[2] += self.rfile.read(int(self.headers["Content-Length"]))
        total = self.headers["Content-Range"].rpartition("/")[2]
        if total == "*" or int(total) > len(session[2]):  # more will come
            self.send_response(308)
            self.send_header("Range", f"bytes=0-{len(session[2]) - 1}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._insert(*session, None)

    def do_DELETE(self):
        place, query = self._asked()
        name = unquote(place.rpartition("/o/")[2])
        if not self._in_bucket(place) or self._refused("delete", name):
            return
        with self.server.lock:
            if name not in self.server.objects:
                self._fail(404, f"No such object: {name}")
            elif self._matches(name, query):
                del self.server.objects[name]
                self._noted("delete", name)
                self.send_response(204)
                self.end_headers()

    def _asked(self):
        parts = urlsplit(self.path)
        return parts.path, {key: found[0] for key, found in parse_qs(parts.query).items()}

    def _in_bucket(self, place):
        if f"/b/{BUCKET}/" in place:
            return True
        self._fail(404, "The specified bucket does not exist.")
        return False

    def _refused(self, verb, name):
        short = name.removeprefix(PREFIX)
        self.server.before(verb, short)
        status = self.server.refusal(verb, short)
        if status is not None:
            self._fail(status, f"refused by the test with {status}")
        return status is not None

    def _noted(self, verb, name):
        self.server.log.append((verb, name.removeprefix(PREFIX)))

    def _matches(self, name, query):
        found = self.server.objects.get(name)
        wanted = query.get("ifGenerationMatch")
        if wanted is None or int(wanted) == (found[1] if found else 0):
            return True
        self._fail(412, "At least one of the pre-conditions you specified did not hold.")
        return False

    def _insert(self, name, query, content, crc32c):
        if crc32c is not None and crc32c != _crc32c(content):
            self._fail(400, "Provided CRC32C does not match calculated one.")
            return
        with self.server.lock:
            if self._matches(name, query):
                self.server.generation += 1
                found = (content, self.server.generation, datetime.now(UTC))
                self.server.objects[name] = found
                self._noted("put", name)
                self._answer(json.dumps(_resource(name, *found)).encode())

    def _list(self, query):
        if self._refused("list", query["prefix"]):
            return
        names = sorted(name for name in self.server.objects if name.startswith(query["prefix"]))
        begin = int(query.get("pageToken", 0))
        chosen = names[begin : begin + PAGE]
        answer = {"items": [_resource(name, *self.server.objects[name]) for name in chosen]}
        if begin + PAGE < len(names):
            answer["nextPageToken"] = str(begin + PAGE)
        self._answer(json.dumps(answer).encode())

    def _media(self, name, content, generation, updated):
        begin = int((self.headers["Range"] or "bytes=0-")[len("bytes=") :].split("-")[0])
        with self.server.lock:
            cut = self.server.cuts.pop(0) if self.server.cuts else None
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("X-Goog-Hash", f"crc32c={_crc32c(content)}")
        self.send_header("X-Goog-Generation", str(generation))
        self.send_header("X-Goog-Stored-Content-Length", str(len(content)))
        self.end_headers()
        self._noted("get", name)
        self.wfile.write(content[begin:] if cut is None else content[begin : begin + cut])
        if cut is not None:
            self.close_connection = True

    def _answer(self, content, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _fail(self, status, message):
        error = {"error": {"code": status, "message": message, "errors": []}}
        self._answer(json.dumps(error).encode(), status)


def _crc32c(content):
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


def _resource(name, content, generation, updated):
    return {
        "name": name,
        "bucket": BUCKET,
        "size": str(len(content)),
        "crc32c": _crc32c(content),
        "generation": str(generation),
        "updated": updated.isoformat().replace("+00:00", "Z"),
    }


def serving():
    """A fake bucket that answers until the block ends."""
    return answering(FakeBucket())


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A fake bucket that this process's commands use, with a cache of their own."""
    with serving() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield server
