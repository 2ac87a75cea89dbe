import hashlib
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from delrec_jax.data.stored_arrays import content_hash, load_arrays, save_arrays
from delrec_jax.errors import UserError

HEADER = {"seed": 3, "name": "ä", "nested": {"share": 0.1}}
ARRAYS = {
    "users": np.array([1, 5], np.int32),
    "grid": np.arange(6, dtype=np.int64).reshape(2, 3),
    "empty": np.zeros((0, 4), np.float32),
}


def save(path, header=HEADER, arrays=ARRAYS, stated_hash=None):
    save_arrays(path, header, arrays, stated_hash=stated_hash or content_hash(header, arrays))


def load(path):
    return load_arrays(path, "draw file", header=tuple(HEADER), arrays=tuple(ARRAYS))


def test_what_was_saved_is_loaded(tmp_path):
    path = tmp_path / "deeper" / "a.npz"
    save(path)
    header, arrays, found = load(path)
    assert header == HEADER
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert np.array_equal(arrays[name], array)
    assert found == content_hash(HEADER, ARRAYS)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.npz"]


def test_the_hash_by_hand():
    text = b'{"a": 1, "b": [2]}' + b"\nx <i4 (2,)\n" + bytes([7, 0, 0, 0, 0, 1, 0, 0])
    expected = hashlib.sha256(text).hexdigest()
    assert content_hash({"b": [2], "a": 1}, {"x": np.array([7, 256], np.int32)}) == expected


def test_the_hash_sees_names_types_shapes_and_values():
    flat = np.arange(4, dtype=np.int32)
    others = [
        ({"k": 2}, {"x": flat}),
        ({"l": 1}, {"x": flat}),
        ({"k": 1}, {"y": flat}),
        ({"k": 1}, {"x": flat.astype(np.int64)}),
        ({"k": 1}, {"x": flat.view(np.float32)}),
        ({"k": 1}, {"x": flat.reshape(2, 2)}),
        ({"k": 1}, {"x": flat.reshape(2, 2).T}),
        ({"k": 1}, {"x": flat[::-1]}),
        ({"k": 1}, {"x": flat, "y": flat[:0]}),
        ({"k": 1}, {"x": flat}),
    ]
    assert len({content_hash(*other) for other in others}) == len(others)
    assert content_hash({"k": 1}, {"x": flat}) == content_hash(*others[-1])
    assert content_hash({}, {"x": flat[::2]}) == content_hash({}, {"x": flat[::2].copy()})


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.npz: no such draw file; run `delrec prepare` first"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("header", "arrays"),
    [
        ({**HEADER, "seed": 4}, ARRAYS),
        (HEADER, {**ARRAYS, "users": np.array([1, 6], np.int32)}),
        (HEADER, {**ARRAYS, "users": np.array([1, 5], np.int64)}),
        (HEADER, {**ARRAYS, "grid": ARRAYS["grid"].reshape(3, 2)}),
    ],
)
def test_an_altered_file_is_refused(tmp_path, header, arrays):
    save(tmp_path / "a.npz", header, arrays, stated_hash=content_hash(HEADER, ARRAYS))
    with pytest.raises(UserError, match=r"a\.npz: .* altered .*delete it and run `delrec prepare`"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("header", "arrays"),
    [
        ({**HEADER, "more": 1}, ARRAYS),
        ({"seed": 3}, ARRAYS),
        (HEADER, {"users": ARRAYS["users"]}),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, header, arrays):
    save(tmp_path / "a.npz", header, arrays)
    with pytest.raises(UserError, match=r"a\.npz: not a .*draw file.*run `delrec prepare` again"):
        load(tmp_path / "a.npz")


def test_damage_anywhere_is_refused_or_harmless(tmp_path):
    """Cut files, and files with one byte changed: a clear error, or (unused bytes of the format) the same content."""
    path = tmp_path / "a.npz"
    save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"text", *(content[:n] for n in rng.integers(1, len(content), 100))]
    for place in rng.integers(0, len(content), 400):
        other = bytes([content[place] ^ int(rng.integers(1, 256))])
        damaged.append(content[:place] + other + content[place + 1 :])
    refused = 0
    for one in damaged:
        path.write_bytes(one)
        try:
            header, arrays, _ = load(path)
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "run `delrec prepare` again" in str(error)
        else:
            assert content_hash(header, arrays) == content_hash(HEADER, ARRAYS)
    assert refused > 300


def rewritten(path, name, content, method=zipfile.ZIP_STORED):
    """Puts another content in the place of one entry of the file."""
    with zipfile.ZipFile(path) as old:
        entries = {entry: old.read(entry) for entry in old.namelist()}
    with zipfile.ZipFile(path, "w", method) as new:
        for entry, kept in entries.items():
            new.writestr(entry, content if entry == name else kept)


def test_a_shape_beyond_all_memory_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    save(path)
    buffer = io.BytesIO()
    header = {"descr": "<i8", "fortran_order": False, "shape": (1 << 58,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    rewritten(path, "grid.npy", buffer.getvalue())
    with pytest.raises(UserError, match=r"a\.npz: not a readable draw file"):
        load(path)


def test_a_damaged_compressed_file_is_refused(tmp_path):
    """We write none, but a person may have packed the file anew."""
    path = tmp_path / "a.npz"
    save(path)
    rewritten(path, "", b"", zipfile.ZIP_DEFLATED)
    assert np.array_equal(load(path)[1]["grid"], ARRAYS["grid"])
    content = bytearray(path.read_bytes())
    start = content.index(b"users.npy") + len(b"users.npy")
    content[start] = 0xFF  # no deflate block begins so
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz: not a readable draw file"):
        load(path)


class Trap:
    """What a pickle could do when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickles_are_neither_written_nor_read(tmp_path):
    trap = np.array([Trap(str(tmp_path / "sprung"))], object)
    with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
        save_arrays(tmp_path / "a.npz", HEADER, {**ARRAYS, "users": trap}, stated_hash="")
    assert not (tmp_path / "a.npz").exists()
    np.savez(
        tmp_path / "b.npz", header=np.array("{}"), hash=np.array(""), **{**ARRAYS, "users": trap}
    )
    (tmp_path / "c.npz").write_bytes(pickle.dumps(trap[0]))
    for name in ("b.npz", "c.npz"):
        with pytest.raises(UserError, match="not a readable draw file"):
            load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save(path)
    before = path.read_bytes()

    def cut(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", cut)
    with pytest.raises(KeyboardInterrupt):
        save(path, {**HEADER, "seed": 4})
    assert path.read_bytes() == before
