"""What a finished stage left, by hash: what a reader is told of each kind of damage, and what may change."""

import json

import pytest

from delrec_jax.errors import UserError
from delrec_jax.workdir import kept_files


@pytest.fixture
def folder(tmp_path):
    for name in (
        "result.safetensors",
        "model/result.json",
        "corpus/records-00000-of-00001",
        "records.parquet",
    ):
        path = tmp_path / "teacher" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "teacher"


def test_what_is_read_is_hashed_and_the_rest_is_not(folder):
    for name in ("stage.json", "title_vectors.npz", "log.jsonl", "page.html", ".x.partial-1.json"):
        (folder / name).write_text("x")
    (folder / "checkpoints" / "4").mkdir(parents=True)
    (folder / "checkpoints" / "4" / "meta.json").write_text("x")
    read = {
        "result.safetensors",
        "model/result.json",
        "corpus/records-00000-of-00001",
        "records.parquet",
    }
    assert kept_files.hashes(folder).keys() == read


def test_each_file_is_checked(folder):
    files = kept_files.hashes(folder)
    kept_files.check(folder, files, stage="teach")
    (folder / "another.json").write_text("later")
    kept_files.check(folder, files, stage="teach")
    for name in files:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1] + b"?")
        with pytest.raises(
            UserError, match=f"{name}: damaged or changed.*delete .* run `delrec teach` again"
        ):
            kept_files.check(folder, files, stage="teach")
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"{name}: cannot be read"):
            kept_files.check(folder, files, stage="teach")
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"finished": False},
        {"fingerprint": "b"},
        {"files": {}},
        {"content": 3},
        {"judged_by": []},
        {"more": 1},
    ],
)
def test_a_marker_says_what_it_said(tmp_path, change):
    marker = {
        "fingerprint": "a",
        "finished": True,
        "content": "c",
        "judged_by": {"x": 1},
        "files": {"f": "h"},
    }
    stored = json.loads(json.dumps(kept_files.sealed(marker)))
    assert kept_files.checked(tmp_path / "stage.json", stored, newest=5) == stored
    with pytest.raises(UserError, match="damaged or changed since the stage wrote it"):
        kept_files.checked(tmp_path / "stage.json", stored | change, newest=5)


@pytest.mark.parametrize("found", [[], None, 3, "x", {}, {"finished": True}])
def test_something_else_is_no_marker(tmp_path, found):
    with pytest.raises(UserError, match=r"stage\.json: damaged"):
        kept_files.checked(tmp_path / "stage.json", found, newest=5)


def test_markers_of_earlier_versions_are_read(tmp_path):
    marker = {"fingerprint": "a", "finished": True, "content": "c"}
    assert kept_files.checked(tmp_path / "stage.json", marker, newest=5) == marker
