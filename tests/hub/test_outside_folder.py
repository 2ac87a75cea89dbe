"""Names and links of a shared folder, or of a model directory, lead nowhere outside it."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from delrec_jax.errors import UserError
from delrec_jax.files import file_hash
from delrec_jax.hub.fetched import fetch, is_shared
from delrec_jax.hub.manifest import (
    Manifest,
    SharedBase,
    check_files,
    read_manifest,
    write_manifest,
)
from delrec_jax.hub.push import check_repo, push
from delrec_jax.language.hub import resolve, stored_tensors

NAMES = ("config.json", "tokenizer/tokenizer.json")
CLIMBING = [
    *(
        "../ann/shop",
        "ann/..",
        "../..",
        "/etc/passwd",
        "ann/../shop",
        "ann/shop/../..",
        ".ann/shop",
    ),
    *(
        "ann\\shop",
        "ann/shop\n",
        "ann/sh op",
        "ann/shop@main",
        "file:///etc/passwd",
        "ann//shop",
        "",
    ),
]


@pytest.fixture
def folder(tmp_path):
    """A folder with a manifest; enough for what is checked before anything in it is read."""
    place = tmp_path / "shared"
    return filled(place)


def filled(place):
    (place / "tokenizer").mkdir(parents=True)
    for name in NAMES:
        (place / name).write_text("{}")
    (place / "README.md").write_text("A model")
    listed(place, {name: file_hash(place / name) for name in NAMES})
    return place


def listed(place, files):
    base = SharedBase("", "", "")
    write_manifest(place, Manifest(1, "1", base, {}, (), {}, "", files))


def refusal(place):
    with pytest.raises(UserError) as caught:
        check_files(place, read_manifest(place / "delrec.json"))
    message = str(caught.value)
    assert message.startswith(str(place)) and "\n" not in message
    return message


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.json", "/etc/passwd", "tokenizer/../../secret.json", "tokenizer\\x.json"),
        *(
            "base/../config.json",
            "model.pkl",
            "base/model.bin",
            "tokenizer/tokenizer.py",
            "config.json\n",
        ),
    ],
)
def test_names_that_no_folder_lists(folder, name):
    listed(folder, {name: "0"})
    with pytest.raises(UserError, match=r"lists the file .*, which no such folder has"):
        read_manifest(folder / "delrec.json")


@pytest.mark.parametrize("name", [*NAMES, "README.md", "delrec.json"])
def test_a_link_out_of_the_folder_is_neither_read_nor_uploaded(folder, tmp_path, name, monkeypatch):
    """The content is even the right one: what is refused is the place."""
    check_files(folder, read_manifest(folder / "delrec.json"))
    secret = shutil.move(folder / name, tmp_path / "secret")
    (folder / name).symlink_to(secret)
    assert f"{name}: a link to {secret}, outside the folder" in refusal(folder)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    with pytest.raises(UserError, match="outside the folder"):
        push(folder, "ann/shop")


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_to_itself_is_told(folder, tmp_path, inside):
    name = NAMES[0]
    (folder / name).unlink()
    place = folder / name if inside else tmp_path / "loop"
    place.symlink_to(place)
    if not inside:
        (folder / name).symlink_to(place)
    assert ("not there" if inside else "outside the folder") in refusal(folder)


def test_a_folder_that_is_itself_a_link_is_read(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    check_files(tmp_path / "link", read_manifest(folder / "delrec.json"))


def test_a_folder_below_that_is_a_link_is_refused(folder, tmp_path):
    shutil.move(folder / "tokenizer", tmp_path / "elsewhere")
    (folder / "tokenizer").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert "tokenizer.json: a link to" in refusal(folder)


def test_links_of_the_hubs_cache_are_read(tmp_path):
    """It keeps the content of CACHE/MODEL/snapshots/COMMIT in CACHE/MODEL/blobs."""
    model = tmp_path / "models--ann--shop"
    place = filled(model / "snapshots" / "0123")
    (model / "blobs").mkdir()
    for name in (*NAMES, "README.md", "delrec.json"):
        blob = shutil.move(place / name, model / "blobs" / name.replace("/", "-"))
        (place / name).symlink_to(blob)
    check_files(place, read_manifest(place / "delrec.json"))
    (model / "secret").write_text("{}")
    (place / "config.json").unlink()
    (place / "config.json").symlink_to(model / "secret")
    assert "config.json: a link to" in refusal(place)


@pytest.mark.parametrize("name", ["tokenizer/tokenizer.py", "tokenizer/spiece.model", "base/x.bin"])
def test_a_file_that_is_not_listed_is_not_there_for_a_library_to_find(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    assert f"{name}: delrec.json does not list it; remove it" in refusal(folder)


def test_a_misspelled_run_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_shared("runs/nope")
    (tmp_path / "runs").mkdir()
    assert not is_shared("runs/nope")


@pytest.mark.parametrize("name", CLIMBING)
def test_names_on_the_hub_that_are_none(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    assert not is_shared(name)
    with pytest.raises(UserError, match="not USER/NAME"):
        fetch(name)
    with pytest.raises(UserError, match="give USER/NAME"):
        check_repo(name)
    if not (tmp_path / name).exists():
        with pytest.raises(UserError, match="not a hub name"):
            resolve(name)


@pytest.mark.parametrize(
    "shard",
    ["../secret.safetensors", "{place}/secret.safetensors", "a/b.safetensors", "secret.bin"],
)
def test_an_index_names_files_beside_it_alone(tmp_path, shard):
    model = tmp_path / "model"
    (model / "a").mkdir(parents=True)
    shard = shard.format(place=tmp_path)
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "secret.safetensors")
    save_file({"a": np.ones(2, np.float32)}, model / "a" / "b.safetensors")
    save_file({"a": np.ones(2, np.float32)}, model / "secret.bin")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(UserError) as caught:
        stored_tensors(model)
    assert str(caught.value) == (
        f"{index}: names {shard!r}, which is no .safetensors file beside it; download it again"
    )
