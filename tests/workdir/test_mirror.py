"""The local folder and the bucket: equal after each fetch and each put, and fit to resume from at any moment in between."""

import json
import shutil

import pytest
from gcs_fake import URL

from delrec_jax.errors import UserError
from delrec_jax.workdir.bucket import Bucket
from delrec_jax.workdir.lease import Lease
from delrec_jax.workdir.mirror import Mirror, belongs, checkpoint_of, fetch, whole_names

STEP = "lm/round-1/checkpoints"


def marker(fingerprint, *, finished):
    return json.dumps({"fingerprint": fingerprint, "finished": finished})


def write(folder, **files):
    """Files by name, in which __ stands for / and _dot_ for a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def checkpoint(folder, step, text="x"):
    place = folder / STEP / str(step)
    (place / "arrays").mkdir(parents=True)
    (place / "_CHECKPOINT_METADATA").write_text(f"about {text}")
    (place / "arrays" / "d").write_text(text)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def stored(bucket):
    return {name: bucket.content(name) for name in bucket.names() if name != "lease.json"}


@pytest.fixture
def folder(tmp_path):
    """The beginning of a run: a finished stage, and one in progress with two checkpoints."""
    folder = tmp_path / "local"
    write(folder, config="{}", data__split="s", data__sub__a="a", lm__tokenizer="t")
    (folder / "data" / "stage.json").write_text(marker("d", finished=True))
    (folder / "lm" / "stage.json").write_text(marker("l", finished=False))
    checkpoint(folder, 4)
    checkpoint(folder, 8)
    return folder


@pytest.fixture
def mirror(bucket, folder, tmp_path):
    """The folder's mirror, with the bucket as the folder is."""
    bucket.store_folder(folder)
    with Lease(Bucket(URL)) as lease:
        found = Mirror(Bucket(URL), folder, lease)
        bucket.log.clear()
        yield found


def test_what_belongs_to_a_workdir():
    assert all(map(belongs, ["config.json", "lm/stage.json", f"{STEP}/8/arrays/d"]))
    unwanted = ["lease.json", ".lock", "a/.b.partial-7", "../x", "a//b", "/a", "a/"]
    assert not any(map(belongs, [*unwanted, f"{STEP}/8.orbax-checkpoint-tmp/a"]))
    assert checkpoint_of(f"{STEP}/8/arrays/d") == f"{STEP}/8" and not checkpoint_of(f"{STEP}/8")
    names = {f"{STEP}/8/_CHECKPOINT_METADATA", f"{STEP}/8/d", f"{STEP}/9/d", "lm/a"}
    assert whole_names(names) == names - {f"{STEP}/9/d"}


def test_a_fetch_makes_the_folder_equal(bucket, folder, tmp_path):
    bucket.store_folder(folder)
    other = tmp_path / "other"
    fetch(Bucket(URL), other)
    assert contents(other) == contents(folder) == stored(bucket)
    write(
        other, data__split="S", data__new="n", old__b="b"
    )  # as long as before, new, of an old stage
    (other / ".lock").write_text("mine")
    bucket.log.clear()
    fetch(Bucket(URL), other)
    assert bucket.did("get") == [("get", "data/split")]
    assert (other / ".lock").exists() and not (other / "old").exists()
    (other / ".lock").unlink()
    assert contents(other) == contents(folder)


def test_a_checkpoint_that_is_not_all_there_is_not_fetched(bucket, folder, tmp_path):
    bucket.store_folder(folder)
    bucket.objects.pop(f"runs/one/{STEP}/8/_CHECKPOINT_METADATA")
    fetch(Bucket(URL), tmp_path / "other")
    assert sorted(path.name for path in (tmp_path / "other" / STEP).iterdir()) == ["4"]


def test_a_reader_needs_no_checkpoints(bucket, folder, tmp_path):
    bucket.store_folder(folder)
    fetch(Bucket(URL), tmp_path / "other", checkpoints=False)
    assert not (tmp_path / "other" / STEP).exists()
    fetch(Bucket(URL), folder, checkpoints=False)
    assert contents(folder) == stored(bucket)  # those that are there stay


def test_a_put_makes_the_bucket_equal_and_sends_only_what_is_new(mirror, bucket, folder):
    mirror.put()
    assert bucket.did("put", "delete", "get") == []
    write(folder, lm__tokenizer="T", lm__more="m")
    mirror.put()
    assert sorted(bucket.did("put")) == [("put", "lm/more"), ("put", "lm/tokenizer")]
    assert stored(bucket) == contents(folder)


def test_a_finished_stages_marker_comes_last(mirror, bucket, folder):
    write(folder, lm__a="a", lm__zzz="z", aaa__x="x")
    (folder / "lm" / "stage.json").write_text(marker("l", finished=True))
    mirror.put()
    asked = bucket.did("put", "delete")
    assert asked[-1] == ("put", "lm/stage.json") and asked.count(asked[-1]) == 1
    assert len(asked) == 4 and stored(bucket) == contents(folder)


def test_a_checkpoint_counts_when_it_is_all_there_and_the_old_one_goes_after_it(
    mirror, bucket, folder
):
    checkpoint(folder, 12)
    (folder / STEP / "16.orbax-checkpoint-tmp").mkdir()
    (folder / STEP / "16.orbax-checkpoint-tmp" / "d").write_text("not yet")
    shutil.rmtree(folder / STEP / "4")
    mirror.put()
    assert bucket.did("put", "delete") == [
        ("put", f"{STEP}/12/arrays/d"),
        ("put", f"{STEP}/12/_CHECKPOINT_METADATA"),
        ("delete", f"{STEP}/4/_CHECKPOINT_METADATA"),
        ("delete", f"{STEP}/4/arrays/d"),
    ]


def test_a_checkpoint_that_is_replaced_does_not_count_meanwhile(mirror, bucket, folder):
    shutil.rmtree(folder / STEP / "8")
    checkpoint(folder, 8, "other")
    mirror.put()
    commit = f"{STEP}/8/_CHECKPOINT_METADATA"
    assert bucket.did("put", "delete") == [
        ("delete", commit),
        ("put", f"{STEP}/8/arrays/d"),
        ("put", commit),
    ]


REDONE = [
    ("d", False),  # as when a file of the user's has changed: the same settings again
    ("other", False),
    ("other", True),
    (None, None),  # the stage is gone
]


@pytest.mark.parametrize(("fingerprint", "finished"), REDONE)
def test_the_marker_of_a_stage_that_is_redone_goes_first(
    mirror, bucket, folder, fingerprint, finished
):
    shutil.rmtree(folder / "data")
    if fingerprint:
        write(folder, data__split="new")
        (folder / "data" / "stage.json").write_text(marker(fingerprint, finished=finished))
    mirror.put()
    asked = bucket.did("put", "delete")
    assert asked[0] == ("delete", "data/stage.json")
    assert ("delete", "data/sub/a") in asked
    assert (asked[-1] == ("put", "data/stage.json")) == bool(fingerprint)
    assert stored(bucket) == contents(folder)


def test_an_unfinished_marker_stays_with_what_was_done(mirror, bucket, folder):
    """Without its marker, what an interrupted stage left would be removed."""
    write(folder, lm__more="m")
    (folder / "lm" / "stage.json").write_text(marker("l", finished=True))
    bucket.refuse("put", "lm/stage.json", 403)
    with pytest.raises(UserError, match=r"lm/stage\.json: permission denied"):
        mirror.put()
    assert json.loads(bucket.content("lm/stage.json")) == {"fingerprint": "l", "finished": False}
    assert bucket.content("lm/more") == b"m"


@pytest.mark.parametrize("name", ["adapter/a", "adapter/m", "adapter/z"])
def test_a_put_that_fails_in_the_middle_leaves_no_finished_marker(
    mirror, bucket, folder, tmp_path, name
):
    write(folder, adapter__a="a", adapter__m="m", adapter__z="z")
    (folder / "adapter" / "stage.json").write_text(marker("t", finished=True))
    bucket.refuse("put", name, 403)
    with pytest.raises(UserError) as error:
        mirror.put()
    assert str(error.value).startswith(f"{URL}/{name}: permission denied")
    assert "adapter/stage.json" not in bucket.names()
    bucket.refusals.clear()
    mirror.put()
    assert stored(bucket) == contents(folder)


def test_every_moment_of_a_put_can_be_resumed_from(bucket, folder, tmp_path):
    """After each single request the bucket is fetched: no finished marker without its files, and always a whole checkpoint."""
    bucket.store_folder(folder)
    seen = []

    def look(verb, name):
        if verb in ("put", "delete") and name != "lease.json" and not busy:
            busy.append(True)
            seen.append({n: bucket.content(n) for n in whole_names(bucket.names())})
            busy.clear()

    busy = []
    with Lease(Bucket(URL)) as lease:
        mirror = Mirror(Bucket(URL), folder, lease)
        write(folder, data__split="2", data__sub__a="2", lm__result="r")
        (folder / "data" / "stage.json").write_text(marker("d2", finished=True))
        (folder / "lm" / "stage.json").write_text(marker("l", finished=True))
        checkpoint(folder, 12)
        shutil.rmtree(folder / STEP / "4")
        bucket.before = look
        mirror.put()
    assert len(seen) > 8
    before, after = (b"s", b"a", b"d"), (b"2", b"2", b"d2")
    for state in seen:
        if "data/stage.json" in state:
            files = (state["data/split"], state["data/sub/a"])
            print_ = json.loads(state["data/stage.json"])["fingerprint"].encode()
            assert (*files, print_) in (before, after)
        assert json.loads(state["lm/stage.json"])["finished"] <= ("lm/result" in state)
        steps = {checkpoint_of(name) for name in state} - {""}
        assert f"{STEP}/8" in steps and all(f"{step}/arrays/d" in state for step in steps)


def test_what_somebody_else_wrote_is_not_written_over(mirror, bucket, folder):
    bucket.store("lm/tokenizer", b"theirs")
    write(folder, lm__tokenizer="mine", lm__new="n")
    with pytest.raises(UserError, match="lm/tokenizer: somebody else has changed it"):
        mirror.put()
    bucket.store("lm/other", b"theirs")
    write(folder, lm__other="mine", lm__tokenizer="t")
    with pytest.raises(UserError, match="lm/other: somebody else"):
        mirror.put()
    assert bucket.content("lm/tokenizer") == bucket.content("lm/other") == b"theirs"


def test_nothing_is_put_without_the_lease(mirror, bucket, folder):
    write(folder, lm__new="n")
    bucket.store("lease.json", b"{}")
    with pytest.raises(UserError, match=f"--workdir={URL}: another run has taken it over"):
        mirror.put()
    assert bucket.did("put", "delete") == []
