"""A hub on 127.0.0.1 that speaks the part of the Hugging Face hub's HTTP API that `huggingface_hub` asks of it for models.

Made after what `huggingface_hub` sends: repos/create, models/NAME, preupload, LFS batch, commit, tree, and resolve.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
from local_server import answering

TOKEN = "hf_of_this_test"
_LARGE = (".safetensors", ".bin")


class FakeHub(ThreadingHTTPServer):
    """Its repositories, what was asked of it, and which requests it refuses."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos = {}  # name -> {"private": bool, "commits": [(commit, {path: content})]}
        self.objects = {}  # SHA-256 -> content of an uploaded large file
        self.log = []  # (method, path)
        self.refusals = []  # (pattern of "METHOD path", status, headers)
        self.lock = threading.RLock()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that closes its connection early is no news."""

    def make(self, name, files=None, *, private=False):
        """A repository, with one commit of these files."""
        self.repos[name] = {"private": private, "commits": []}
        return self.commit(name, {".gitattributes": b"", **(files or {})})

    def commit(self, name, files):
        """Adds a commit that holds exactly these files; returns its name."""
        with self.lock:
            commits = self.repos[name]["commits"]
            made = hashlib.sha1(f"{name}/{len(commits)}".encode()).hexdigest()
            commits.append((made, dict(files)))
            return made

    def change(self, name, **contents):
        """A commit in which some files have another content (None: are gone); `__` in a keyword stands for a dot."""
        files = self.files(name)
        for path, content in contents.items():
            files[path.replace("__", ".")] = content
        return self.commit(name, {path: c for path, c in files.items() if c is not None})

    def files(self, name, revision="main"):
        """The files of a repository at a commit."""
        commits = self.repos[name]["commits"]
        return dict(commits[-1][1] if revision == "main" else dict(commits)[revision])

    def fetched(self):
        """The files that were downloaded or asked about."""
        return {
            path.split("/resolve/")[1].split("/", 1)[1]
            for _, path in self.log
            if "/resolve/" in path
        }

    def refuse(self, pattern, status, **headers):
        self.refusals.append((pattern, status, headers))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *args):
        pass

    def _asked(self):
        self.place = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.log.append((self.command, self.place))
        for pattern, status, headers in self.server.refusals:
            if re.fullmatch(pattern, f"{self.command} {self.place}"):
                self._answer({"error": "refused by the test"}, status, **headers)
                return False
        given = self.headers["Authorization"]
        if given not in (None, f"Bearer {TOKEN}"):
            message = "Invalid credentials in Authorization header"
            self._answer({"error": message}, 401, X_Error_Message=message)
            return False
        self.known = given is not None
        if self.command in ("POST", "PUT") and not self.known and "/lfs/" not in self.place:
            self._answer({"error": "log in"}, 401)
            return False
        return True

    def _answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _repo(self, name):
        """A repository that may be seen; None after the answer that there is none."""
        found = self.server.repos.get(name)
        if found is None or (found["private"] and not self.known):
            self._answer(
                {"error": "Repository not found"},
                404 if self.known else 401,
                X_Error_Code="RepoNotFound",
                X_Error_Message="Repository not found",
            )
            return None
        return found

    def _commit_of(self, repo, revision):
        """(name, files) of a commit; None after the answer that there is none."""
        commits = repo["commits"]
        for made, files in [("main", None), *commits]:
            if made == revision:
                return commits[-1] if files is None else (made, files)
        self._answer({"error": "Invalid rev"}, 404, X_Error_Code="RevisionNotFound")
        return None

    def do_GET(self):
        if not self._asked():
            return
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self.place):
            self._info(*match.groups())
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self.place):
            self._tree(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.place):
            self._file(*match.groups())
        else:
            self._answer({"error": "nothing there"}, 404)

    do_HEAD = do_GET

    def _info(self, name, revision):
        if (repo := self._repo(name)) and (found := self._commit_of(repo, revision or "main")):
            made, files = found
            siblings = [{"rfilename": path} for path in files]
            self._answer(
                {"id": name, "sha": made, "private": repo["private"], "siblings": siblings}
            )

    def _tree(self, name, revision):
        if (repo := self._repo(name)) and (found := self._commit_of(repo, revision)):
            entries = []
            for path, content in found[1].items():
                entry = {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
                if path.endswith(_LARGE):
                    digest = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
                entries.append(entry)
            self._answer(entries)

    def _file(self, name, revision, path):
        if not (repo := self._repo(name)) or not (found := self._commit_of(repo, revision)):
            return
        made, files = found
        if path not in files:
            self._answer({"error": "no such file"}, 404, X_Error_Code="EntryNotFound")
            return
        large = path.endswith(_LARGE)
        tag = hashlib.sha256(files[path]).hexdigest() if large else _oid(files[path])
        self._answer(files[path], ETag=f'"{tag}"', X_Repo_Commit=made)

    def do_PUT(self):
        if self._asked():
            digest = self.place.rpartition("/")[2]
            right = hashlib.sha256(self.body).hexdigest() == digest
            if right:
                self.server.objects[digest] = self.body
            self._answer({}, 200 if right else 400)

    def do_POST(self):
        if not self._asked():
            return
        if self.place == "/api/repos/create":
            self._create(json.loads(self.body))
        elif self.place == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.place):
            if self._repo(match[1]):
                self._answer({"files": [_mode(one) for one in json.loads(self.body)["files"]]})
        elif re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.place):
            self._batch(json.loads(self.body)["objects"])
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", self.place):
            self._take(match[1], [json.loads(line) for line in self.body.splitlines()])
        else:
            self._answer({"error": "nothing there"}, 404)

    def _create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.server.endpoint}/{name}"
        if name in self.server.repos:
            self._answer({"error": "You already created this model repo", "url": url}, 409)
            return
        self.server.make(name, private=asked.get("visibility") == "private")
        self._answer({"url": url, "name": name})

    def _batch(self, objects):
        found = []
        for one in objects:
            href = f"{self.server.endpoint}/lfs/{one['oid']}"
            missing = one["oid"] not in self.server.objects
            found.append(one | ({"actions": {"upload": {"href": href}}} if missing else {}))
        self._answer({"transfer": "basic", "objects": found})

    def _take(self, name, lines):
        if not (repo := self._repo(name)):
            return
        files = self.server.files(name)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                if value.get("parentCommit") not in (None, repo["commits"][-1][0]):
                    self._answer({"error": "A commit has happened since"}, 412)
                    return
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            else:
                del files[value["path"]]
        made = self.server.commit(name, files)
        url = f"{self.server.endpoint}/{name}/commit/{made}"
        self._answer({"commitUrl": url, "commitOid": made, "success": True})


def _oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _mode(one):
    mode = "lfs" if one["path"].endswith(_LARGE) else "regular"
    return {"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


def serving():
    """A fake hub that answers until the block ends."""
    return answering(FakeHub())


def environment(server, folder):
    """What points a process to a fake hub, with a cache of its own and a token."""
    return {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fake hub that this process asks, whose `huggingface_hub` has read its environment already."""
    constants = huggingface_hub.constants
    with serving() as server:
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        # It tries again after a failure, and waits in between.
        monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield server
