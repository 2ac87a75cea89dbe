"""What a packed file unpacks to is bounded, by whatever method it is packed."""

import gzip
import tracemalloc
import zipfile
from contextlib import contextmanager

import polars as pl
import pytest

from delrec_jax.data.corpora import archives
from delrec_jax.data.corpora.archives import lines_of, open_lines, read_member, read_whole
from delrec_jax.data.corpora.frames import load_frame
from delrec_jax.data.corpora.record_lines import json_record, read_records
from delrec_jax.errors import UserError

ZEROS = gzip.compress(bytes(4_000_000))  # 4 kB


@contextmanager
def refused(path, *words, most=40_000_000):
    """The block ends with one line about the file, and never holds more than `most` bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert [word for word in words if word not in message] == []
    assert peak < most


@pytest.fixture
def bomb(tmp_path, monkeypatch):
    """A gzipped file of nothing but zeros, above the limit for a file of its size."""
    monkeypatch.setattr(archives, "ALWAYS", 1_000_000)
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(ZEROS)
    return path


def test_a_gzipped_file_unpacks_to_so_many_times_its_size(bomb):
    with (
        refused(bomb, "more than 1,000,000 bytes unpacked, 100 times its own size"),
        open_lines(bomb) as file,
    ):
        file.read()
    with refused(bomb, "more than 1,000,000 bytes unpacked"):
        read_records(bomb, lambda line: tuple(json_record(line)), {"a": pl.String})


def test_what_text_packs_to_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS", 1000)
    lines = [b'{"user": "A%d", "text": "all good"}\n' % (n * n * 977) for n in range(50_000)]
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(gzip.compress(b"".join(lines)))
    with open_lines(path) as file:
        assert list(lines_of(path, file)) == lines


def test_files_in_several_parts_count_together(tmp_path, monkeypatch):
    """Gzip files may be joined; each part alone is below the limit."""
    monkeypatch.setattr(archives, "ALWAYS", 1_000_000)
    path = tmp_path / "joined.gz"
    path.write_bytes(gzip.compress(bytes(300_000)) * 8)
    with refused(path, "bytes unpacked"):
        read_whole(path)


def test_a_line_without_end_is_refused_before_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LONGEST_LINE", 100_000)
    path = tmp_path / "reviews.json"
    path.write_bytes(b"{}\n" + bytes(5_000_000))
    with refused(path, "line 2: more than 100,000 bytes in one line"), open_lines(path) as file:
        assert [len(line) for line in lines_of(path, file)] == [3]
    path.write_bytes(b"a" * 99_999 + b"\n" + b"b" * 100_000)
    with open_lines(path) as file:
        assert [len(line) for line in lines_of(path, file)] == [100_000, 100_000]


def test_a_whole_file_has_a_limit(tmp_path):
    path = tmp_path / "Val_data.df"
    path.write_bytes(ZEROS)
    with refused(path, "more than 1,000 bytes unpacked"):
        read_whole(path, limit=1000)
    assert read_whole(path, limit=4_000_000) == bytes(4_000_000)


def test_a_frame_is_read_within_the_limit(bomb):
    with refused(bomb, "bytes unpacked"):
        load_frame(bomb)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 93], ids=["bzip2", "lzma", "zstandard"]
)
def test_only_methods_that_unpack_piece_by_piece_are_read(tmp_path, method):
    """A few kilobytes of bzip2 unpack to gigabytes in one piece, whatever size the archive states."""
    path = tmp_path / "a.zip"
    usual = method if method != 93 else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("u.data"), bytes(20_000_000), usual)
    content = path.read_bytes().replace((20_000_000).to_bytes(4, "little"), b"\x0a\0\0\0")
    if method == 93:
        at = content.index(b"PK\x01\x02") + 10
        content = content[:at] + method.to_bytes(2, "little") + content[at + 2 :]
    path.write_bytes(content)
    with refused(path, f"member 'u.data': packed by method {method}", "deflate", most=1_000_000):
        read_member(path, "u.data")
