"""Names, caches and directories: a hub cache made here, and a hub that answers on this machine alone."""

import json
import os
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from delrec_jax.errors import UserError
from delrec_jax.language.hub import StoredTensor, resolve, stated_number, stored_tensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "some-one/tiny-t5"
RESOLVE = """
import sys
from delrec_jax.errors import UserError
from delrec_jax.language.hub import resolve
try:
    print(resolve(sys.argv[1]))
except UserError as error:
    print("UserError", error)
"""


def resolved(name, folder, **environment):
    """`resolve` in a process of its own: huggingface_hub reads the environment once, on import."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    # Whatever a test forgets, it asks nobody but this machine, where nothing listens on port 9.
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(folder / "home")}
    run = subprocess.run(
        [sys.executable, "-c", RESOLVE, name],
        env={**kept, **hub, "HF_HUB_CACHE": str(folder / "cache"), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    return line


def cached(folder):
    """The cache as `huggingface_hub` lays it out."""
    home = folder / "cache" / "models--some-one--tiny-t5"
    snapshot = home / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    (home / "blobs").mkdir()
    (home / "blobs" / "abc").write_text("{}")
    (snapshot / "config.json").symlink_to(home / "blobs" / "abc")
    return snapshot


# --- names


def test_a_directory_is_taken_as_it_is(tmp_path):
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path


def test_a_directory_wins_over_a_hub_name(tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    assert resolved(NAME, tmp_path, HF_HUB_OFFLINE="1") == NAME


@pytest.mark.parametrize("name", ["/no/such", "../x/y", "./x", "a/b/c", "a b", "a/", "x\ny"])
def test_what_is_neither(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no such directory, and not a hub name \(.*\) either"):
        resolve(name)


def test_a_file_is_no_directory(tmp_path):
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(UserError, match=r"model\.safetensors: a file; name the directory"):
        resolve(file)


# --- cache and network


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {}])
def test_the_cache_serves_offline_and_without_a_network(tmp_path, environment):
    snapshot = cached(tmp_path)
    assert resolved(NAME, tmp_path, **environment) == str(snapshot)


@pytest.mark.parametrize(
    ("name", "environment", "reason"),
    [
        (
            NAME,
            {"HF_HUB_OFFLINE": "1"},
            "missing or incomplete in the hub's cache while HF_HUB_OFFLINE is set: unset it, or name a directory (",
        ),
        (NAME, {}, "the hub cannot be reached: check the network, or name a directory ("),
        (
            NAME,
            {"HTTPS_PROXY": "http://127.0.0.1:9", "HF_ENDPOINT": "https://hub.invalid"},
            "the hub cannot be reached: check the network, or name a directory (",
        ),
        ("some--one/t5", {}, "no such model on the hub: check the name ("),
    ],
)
def test_what_cannot_be_had_is_one_line(tmp_path, name, environment, reason):
    line = resolved(name, tmp_path, **environment)
    assert line.startswith(f"UserError {name}: no such directory, and {reason}")


# --- a hub of our own

FILES = {
    "config.json": b"{}",
    "generation_config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "spiece.model": b"s",
    "model.safetensors.index.json": b"{}",
    "model-00001-of-00002.safetensors": b"1",
    "model-00002-of-00002.safetensors": b"2",
}
LEFT = {
    "README.md": b"words",
    ".gitattributes": b"",
    "pytorch_model.bin": b"p",
    "pytorch_model-00001-of-00002.bin": b"p",
    "flax_model.msgpack": b"f",
    "tf_model.h5": b"t",
    "onnx/model.onnx": b"o",
}


class FakeHub(BaseHTTPRequestHandler):
    """Knows one model; refuses `gated/...` and knows nothing else."""

    def log_message(self, *args):
        """Says nothing."""

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if "gated/" in path:
            self.reply(403, X_Error_Code="GatedRepo", X_Error_Message="ask first")
        elif NAME not in path:
            self.reply(404, X_Error_Code="RepoNotFound", X_Error_Message="no such thing")
        elif "/revision/" in path:
            siblings = [{"rfilename": name} for name in FILES | LEFT]
            self.reply(200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings}).encode())
        elif "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(body), "oid": name}
                for name, body in (FILES | LEFT).items()
            ]
            self.reply(200, json.dumps(entries).encode(), Content_Type="application/json")
        else:
            name = path.split(f"/resolve/{COMMIT}/")[1]
            self.reply(200, (FILES | LEFT)[name], ETag=f'"{name}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_only_what_we_read_is_fetched(tmp_path, endpoint):
    directory = Path(resolved(NAME, tmp_path, HF_ENDPOINT=endpoint))
    found = {file.name: file.read_bytes() for file in directory.rglob("*") if file.is_file()}
    assert found == FILES
    # From now on without the hub.
    assert resolved(NAME, tmp_path, HF_HUB_OFFLINE="1") == str(directory)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("some-one/no-t5", "no such model on the hub: check the name ("),
        (
            "gated/t5",
            "the hub denies you access to this model: ask its owner, then run `hf auth login`",
        ),
    ],
)
def test_what_the_hub_refuses(tmp_path, endpoint, name, reason):
    line = resolved(name, tmp_path, HF_ENDPOINT=endpoint)
    assert line.startswith(f"UserError {name}: no such directory, and {reason}")


# --- directories


def sharded(directory):
    """Two files with one tensor each, and their index."""
    save_file({"a": np.ones((2, 3), np.float32)}, directory / "model-1.safetensors")
    save_file({"b": np.ones(4, np.float16)}, directory / "model-2.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index


def test_tensors_by_name(tmp_path):
    sharded(tmp_path)
    assert stored_tensors(tmp_path) == {
        "a": StoredTensor("a", tmp_path / "model-1.safetensors", (2, 3)),
        "b": StoredTensor("b", tmp_path / "model-2.safetensors", (4,)),
    }
    save_file({"c": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    assert list(stored_tensors(tmp_path)) == ["c"]  # as transformers: the one file comes first


def test_an_index_that_names_an_absent_file(tmp_path):
    sharded(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"index\.json: names model-2\.safetensors, which is not"):
        stored_tensors(tmp_path)


def test_an_index_that_names_an_absent_tensor(tmp_path):
    index = sharded(tmp_path)
    text = index.read_text()
    index.write_text(text.replace('"b": ', '"x": "model-1.safetensors", "b": '))
    with pytest.raises(UserError, match=r"names x in model-1\.safetensors, which does not hold it"):
        stored_tensors(tmp_path)
    index.write_text(text.replace("model-2", "model-1"))  # b is in the other file
    with pytest.raises(UserError, match=r"names b in model-1\.safetensors, which does not hold it"):
        stored_tensors(tmp_path)


def test_tensors_beside_the_index_are_seen(tmp_path):
    sharded(tmp_path)
    save_file({n: np.ones(2, np.float32) for n in "by"}, tmp_path / "model-2.safetensors")
    assert stored_tensors(tmp_path)["y"].shape == (2,)


def test_the_index_decides_between_two_of_a_name(tmp_path):
    index = sharded(tmp_path)
    other = {n: np.ones(9, np.float32) for n in "bc"}
    save_file(other, tmp_path / "model-3.safetensors")
    index.write_text(index.read_text().replace('"a": ', '"c": "model-3.safetensors", "a": '))
    found = stored_tensors(tmp_path)
    assert found["b"] == StoredTensor("b", tmp_path / "model-2.safetensors", (4,))
    assert found["c"] == StoredTensor("c", tmp_path / "model-3.safetensors", (9,))


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none(tmp_path, text):
    sharded(tmp_path).write_text(text)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json: .*; download it again"):
        stored_tensors(tmp_path)


def damaged_files():
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(8)
    return {
        "empty": b"",
        "cut in the header": whole[:20],
        "cut in the data": whole[:-1],
        "too long": whole + b"x",
        "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n",
    }


@pytest.mark.parametrize("damage", damaged_files())
def test_a_damaged_file_is_named(tmp_path, damage):
    file = tmp_path / "model.safetensors"
    file.write_bytes(damaged_files()[damage])
    with pytest.raises(UserError) as error:
        stored_tensors(tmp_path)
    assert str(error.value).startswith(f"{file}: damaged (")
    assert f"{file.stat().st_size} bytes); download it again" in str(error.value)
    assert "\n" not in str(error.value)


def test_quantised_tensors_are_refused(tmp_path):
    save_file({"a": np.ones(2, np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: a is I8; only F32, F16, BF16"):
        stored_tensors(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path, name):
    directory = tmp_path / "my model"
    directory.mkdir()
    (directory / name).touch()
    with pytest.raises(UserError) as error:
        stored_tensors(directory)
    message = str(error.value)
    assert message.startswith(f"{directory}: only pytorch_model.bin there, a pickle, which can run")
    # tests/parity runs it.
    assert message.endswith(f"from_pretrained(d).save_pretrained(d)\" '{directory}'")


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match=r"no model\.safetensors and no model\.safetensors\.index"):
        stored_tensors(tmp_path)


@pytest.mark.parametrize(
    ("value", "default", "taken"),
    [
        *((4, 6, True), (8, 6, True), (3, 6, False), (9, 6, False), (5.0, 6, False)),
        *((True, 6, False), ("5", 6, False), (None, 6, False), (5, 6.0, True), (4.5, 6.0, True)),
        *((float("nan"), 6.0, False), (8.5, 6.0, False), (3.5, 6.0, False)),
    ],
)
def test_a_number_of_a_config_lies_within_its_limits(value, default, taken):
    file = Path("config.json")
    assert stated_number(file, {}, "size", default, 4, 8) == default
    if taken:
        assert stated_number(file, {"size": value}, "size", default, 4, 8) == value
        return
    with pytest.raises(UserError, match=r"config\.json: size is "):
        stated_number(file, {"size": value}, "size", default, 4, 8)


def test_a_hub_whose_cache_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder is needed")
    found = resolved(NAME, tmp_path)
    assert found.startswith(f"UserError {NAME}: no such directory, and ")
