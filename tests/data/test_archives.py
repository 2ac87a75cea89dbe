import gzip
import random
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from delrec_jax.data.corpora.archives import open_lines, read_member
from delrec_jax.errors import UserError

ROWS = b"196\t242\t3\t881250949\n" * 40
MEMBERS = {"ml-100k/u.data": ROWS, "ml-100k/u.item": b"1|Toy Story (1995)\n"}


def pack(folder: Path, members=MEMBERS, method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w", method) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            # Made like this it bears no date of today: the same bytes in each run.
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return folder / "a.zip"


def refusal(archive: Path, name: str, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        read_member(archive, name, **kwargs)
    message = str(caught.value)
    assert message.startswith(str(archive))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["ml-100k/u.data", "u.data"])
def test_a_member_is_found_by_the_end_of_its_path(tmp_path, name):
    assert read_member(pack(tmp_path), name) == ROWS
    assert read_member(pack(tmp_path, {"ml-100k\\u.data": ROWS}), name) == ROWS


def test_only_whole_parts_of_a_path_count(tmp_path):
    archive = pack(tmp_path, {"ml-100k/": b"", **MEMBERS})
    for name in ("data", "k/u.data", "ml-100k", "ml-100k/", ""):
        listed = "['ml-100k/u.data', 'ml-100k/u.item']; give"
        assert f"no member {name!r} among {listed}" in refusal(archive, name)


def test_an_exact_path_goes_before_an_end(tmp_path):
    archive = pack(tmp_path, {"old/u.data": b"old", "u.data": b"new"})
    assert read_member(archive, "u.data") == b"new"
    assert read_member(archive, "old/u.data") == b"old"


def test_a_long_list_of_members_is_cut(tmp_path):
    message = refusal(pack(tmp_path, {f"{n}.csv": b"" for n in range(23)}), "x")
    assert "'19.csv'] and 3 more" in message
    assert "'20.csv'" not in message


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("paths", [["a/u.data", "b/u.data"], ["u.data", "u.data"]])
def test_an_ambiguous_member_is_told_with_its_namesakes(tmp_path, paths):
    archive = pack(tmp_path, [(path, b"") for path in (*paths, "c.txt")])
    assert f"2 members are named 'u.data': {paths}; name one" in refusal(archive, "u.data")


@pytest.mark.parametrize("prefix", ["../../", "/", "/etc/", "C:\\"])
def test_a_path_that_climbs_reaches_no_disk(tmp_path, prefix, monkeypatch):
    home = tmp_path / "a" / "b"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    archive = pack(home, {f"{prefix}new-name": ROWS})
    before = sorted(tmp_path.rglob("*"))
    assert read_member(archive, "new-name") == ROWS
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/new-name").exists()


def test_an_encrypted_member_is_named(tmp_path):
    archive = pack(tmp_path)
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the flags of the first member, in its own header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the archive's directory
    archive.write_bytes(content)
    message = refusal(archive, "u.data")
    assert "member 'ml-100k/u.data'" in message and "encrypted" in message
    assert read_member(archive, "u.item") == MEMBERS["ml-100k/u.item"]


def test_a_member_above_the_limit_is_refused(tmp_path):
    archive = pack(tmp_path)
    assert read_member(archive, "u.data", limit=len(ROWS)) == ROWS
    message = refusal(archive, "u.data", limit=len(ROWS) - 1)
    assert "member 'ml-100k/u.data': 800 bytes unpacked, above the limit of 799" in message


def test_a_bomb_that_lies_about_its_size_fills_no_memory(tmp_path):
    archive = pack(tmp_path, {"u.data": bytes(200_000_000)})
    content = archive.read_bytes()
    size = (200_000_000).to_bytes(4, "little")
    assert content.count(size) == 2
    archive.write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        message = refusal(archive, "u.data")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "member 'u.data': damaged (Bad CRC-32" in message
    assert "fetch the archive again" in message
    assert peak < 10_000_000


def test_a_changed_byte_anywhere_gives_the_content_or_an_error(tmp_path):
    archive = pack(tmp_path)
    whole = archive.read_bytes()
    rng = random.Random(0)
    for place, byte in enumerate(whole):
        changed = bytes([byte ^ rng.randrange(1, 256)])
        archive.write_bytes(whole[:place] + changed + whole[place + 1 :])
        try:
            assert read_member(archive, "u.data") == ROWS
        except UserError as error:
            assert str(error).startswith(str(archive))


def test_an_archive_cut_anywhere_is_named(tmp_path):
    archive = pack(tmp_path)
    whole = archive.read_bytes()
    for size in range(len(whole)):
        archive.write_bytes(whole[:size])
        assert "not a zip archive, or damaged" in refusal(archive, "u.data")
    archive.unlink()
    assert "no such file" in refusal(archive, "u.data")


def test_a_directory_that_points_beyond_the_end_is_named(tmp_path):
    archive = pack(tmp_path, {"u.data": ROWS})
    whole = bytearray(archive.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 42] = whole.index(b"PK\x05\x06")
    archive.write_bytes(whole)
    assert "member 'u.data': damaged" in refusal(archive, "u.data")


def test_a_name_that_is_no_utf8_is_told(tmp_path):
    archive = pack(tmp_path, {"u.data": ROWS, "\xe9": b""})
    archive.write_bytes(archive.read_bytes().replace(b"\xc3\xa9", b"\xc3\xc3"))
    assert "damaged ('utf-8' codec" in refusal(archive, "u.data")


LINES = [b'{"user": %d}\n' % n for n in range(20_000)]
PACKED = gzip.compress(b"".join(LINES))


@pytest.mark.parametrize("name", ["reviews.json", "reviews.json.gz"])
@pytest.mark.parametrize("pack_file", [bytes, gzip.compress])
def test_lines_of_a_file_packed_or_not_whatever_its_name(tmp_path, name, pack_file):
    for lines in (LINES, [b"\x1f"], []):
        (tmp_path / name).write_bytes(pack_file(b"".join(lines)))
        with open_lines(tmp_path / name) as file:
            assert list(file) == lines


@pytest.mark.parametrize(
    "content",
    [PACKED[:-1], PACKED[:-8] + b"\0" * 8, PACKED[:1000] + b"\xff" * 50 + PACKED[1050:]],
    ids=["last byte", "checksum", "middle"],
)
def test_damaged_gzip_data_are_named_where_they_are_read(tmp_path, content):
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(content)
    lines = []
    with open_lines(path) as file, pytest.raises(UserError) as caught:
        lines.extend(file)
    assert str(caught.value).startswith(f"{path}: the gzip data are cut short or damaged (")
    assert lines == LINES[: len(lines)]


@pytest.mark.parametrize("content", [LINES[0], PACKED], ids=["plain", "packed"])
def test_the_file_is_closed_and_an_error_of_the_reader_stays_its_own(
    tmp_path, monkeypatch, content
):
    (tmp_path / "reviews").write_bytes(content)
    file = (tmp_path / "reviews").open("rb")
    monkeypatch.setattr(Path, "open", lambda *_: file)
    with pytest.raises(EOFError, match="mine"), open_lines(tmp_path / "reviews"):
        raise EOFError("mine")
    assert file.closed


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError) as caught, open_lines(path):
            pass
        assert str(caught.value).startswith(f"{path}: cannot be read (")
