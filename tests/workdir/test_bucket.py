"""The client against a service that refuses, forgets, is busy and breaks off."""

import sys

import pytest
from gcs_fake import BUCKET, URL

from delrec_jax.errors import UserError
from delrec_jax.workdir.bucket import NEW, Bucket, Changed, Unreachable, checksum, split_url

PATIENCE = (
    20.0  # seconds; enough for a busy machine, and where failure is expected it is given less
)


def told(error, *words):
    """The one line of an error, which has the URL and these words."""
    text = str(error.value)
    assert len(text.splitlines()) == 1 and len(text) < 500
    for word in (URL, *words):
        assert word in text
    return text


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("gs://abc/x", ("abc", "x")),
        ("gs://a-b.c_d/x/y=1/z/", ("a-b.c_d", "x/y=1/z")),
    ],
)
def test_urls(url, parts):
    assert split_url(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        "gs://abc",
        "gs://abc/",
        "gs:///x",
        "gs://abc/x//y",
        "gs://abc/../x",
        "s3://abc/x",
        "gs://A/x",
    ],
)
def test_urls_that_name_no_folder_of_a_bucket(url):
    with pytest.raises(UserError, match="gs://BUCKET/PATH"):
        split_url(url)


def test_what_is_put_can_be_listed_read_and_fetched(bucket, tmp_path):
    client = Bucket(URL)
    for number in range(60):  # more than a page of the list
        client.put(f"many/{number}", b"x" * number, NEW)
    (tmp_path / "big").write_bytes(bytes(range(256)) * (9 << 12))  # 9 MiB: sent in parts
    (tmp_path / "lines").write_bytes(b"\r\n--a\r\n\r\n\n")
    for name in ("big", "lines"):
        stored = client.put(name, tmp_path / name, NEW)
        assert stored.size == (tmp_path / name).stat().st_size
        assert stored.crc32c == checksum(tmp_path / name)
        assert client.list()[name] == stored
        client.get(name, tmp_path / "copy", stored.generation)
        assert (tmp_path / "copy").read_bytes() == (tmp_path / name).read_bytes()
    assert len(client.list()) == 62
    assert client.read("many/3")[0] == b"xxx" and client.read("none") is None
    bucket.objects[f"{BUCKET}-other"] = bucket.objects["runs/one-other/x"] = (b"", 1, None)
    assert len(client.list()) == 62  # of this path only


def test_only_the_known_version_is_replaced_or_deleted(bucket, tmp_path):
    client = Bucket(URL)
    first = client.put("a", b"1", NEW)
    with pytest.raises(Changed) as error:
        client.put("a", b"2", NEW)
    told(error, "/a", "somebody else has changed it")
    second = client.put("a", b"2", first.generation)
    for action in (
        lambda: client.put("a", b"3", first.generation),
        lambda: client.delete("a", first.generation),
        lambda: client.get("a", tmp_path / "a", first.generation),
    ):
        with pytest.raises(Changed):
            action()
    assert client.read("a")[0] == b"2"
    client.delete("a", second.generation)
    client.delete("a", second.generation)  # again, as when an answer was lost
    assert client.list() == {}


def test_a_put_whose_answer_was_lost_is_not_taken_for_somebody_elses(bucket):
    client = Bucket(URL)
    bucket.store("a", b"mine")  # what the first request wrote
    assert client.put("a", b"mine", NEW) == client.list()["a"]


@pytest.mark.parametrize(("verb", "action"), [
    ("list", lambda client, path: client.list()),
    ("look", lambda client, path: client.read("a")),
    ("get", lambda client, path: client.get("a", path, client.list()["a"].generation)),
    ("put", lambda client, path: client.put("b", b"", NEW)),
    ("delete", lambda client, path: client.delete("a", client.list()["a"].generation)),
])  # fmt: skip
def test_refusals_are_told_and_a_busy_service_is_asked_again(bucket, tmp_path, verb, action):
    bucket.store("a", b"1")
    bucket.refuse(verb, ".*", 503, times=1)
    action(Bucket(URL, patience=PATIENCE), tmp_path / "x")
    bucket.store("a", b"2")
    bucket.objects.pop("runs/one/b", None)
    bucket.refuse(verb, ".*", 403)
    with pytest.raises(UserError) as error:
        action(Bucket(URL, patience=PATIENCE), tmp_path / "x")
    told(error, "permission denied", "roles/storage.objectUser")
    assert error.value.status == 2


def test_a_service_that_stays_away_is_worth_another_start(bucket):
    bucket.refuse("list", ".*", 503)
    with pytest.raises(Unreachable) as error:
        Bucket(URL, patience=0.1).list()
    told(error, "cannot be reached", "503", "start the same command again")
    assert error.value.status == 69


def test_nobody_listens(bucket, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(Unreachable) as error:
        Bucket(URL, patience=0.1).list()
    told(error, "cannot be reached")


def test_there_is_no_such_bucket(bucket):
    url = "gs://other-bucket/runs/one"
    with pytest.raises(UserError) as error:
        Bucket(url).list()
    assert str(error.value).startswith(f"{url}: not found")
    assert "The specified bucket does not exist" in str(error.value)


def test_a_download_that_is_cut_goes_on_where_it_broke_off(bucket, tmp_path):
    content = bytes(range(256)) * 256
    bucket.store("a", content)
    bucket.cuts += [10_000, 100]
    client = Bucket(URL, patience=PATIENCE)
    client.get("a", tmp_path / "a", client.list()["a"].generation)
    assert (tmp_path / "a").read_bytes() == content
    assert bucket.did("get") == [("get", "a")] * 3


def test_other_bytes_than_the_service_says_are_not_kept(bucket, tmp_path, monkeypatch):
    bucket.store("a", b"good")
    client = Bucket(URL, patience=0.1)
    generation = client.list()["a"].generation
    monkeypatch.setattr("gcs_fake._crc32c", lambda content: "AAAAAA==")
    with pytest.raises(Unreachable) as error:
        client.get("a", tmp_path / "a", generation)
    told(error, "/a")
    assert not (tmp_path / "a").exists()


def test_no_credentials(monkeypatch, tmp_path):
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(UserError) as error:
        Bucket(URL)
    told(error, "no valid credentials", "gcloud auth application-default login")


def test_the_library_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(UserError) as error:
        Bucket(URL)
    told(error, "google-cloud-storage", 'pip install ".[gcs]"')
