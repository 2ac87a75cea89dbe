"""Commands with a workdir in a bucket: from an empty machine on, told to end, killed, refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from compiling import QUICK_ENVIRONMENT
from gcs_fake import URL
from tiny_storefront import CONFIG, FEW_BASELINES, TINY, delrec, open_workspace

from delrec_jax.training import loop
from delrec_jax.workdir import opening
from delrec_jax.workdir.bucket import Bucket
from delrec_jax.workdir.lease import Lease
from delrec_jax.workdir.prepared import load_data

AT_URL = (CONFIG, f"--workdir={URL}", *TINY)
CHECKPOINTS = "teacher/model/checkpoints"
RESULT = "teacher/model/result.safetensors"
DEADLINE = 300


def forget(tmp_path):
    """This machine is gone, and another one has an empty cache."""
    shutil.rmtree(tmp_path / "cache")


def begin(bucket, tiny_run, *names):
    """A bucket with these parts of the tiny run."""
    for name in names:
        files = (tiny_run / name).rglob("*") if (tiny_run / name).is_dir() else [tiny_run / name]
        for path in filter(Path.is_file, files):
            bucket.store(path.relative_to(tiny_run).as_posix(), path.read_bytes())


def marker(bucket, folder):
    return json.loads(bucket.content(f"{folder}/stage.json"))


def mistake(capsys, *arguments, status=2):
    """The one line with which a command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        delrec(*arguments)
    said = capsys.readouterr().err
    assert ended.value.code == status, said
    (line,) = [line for line in said.splitlines() if line.startswith("delrec: ")]
    assert URL in line and "Traceback" not in said
    return line


def test_stages_in_a_bucket_are_done_once(bucket, tiny_run, tmp_path, capsys):
    delrec("prepare", *AT_URL)
    forget(tmp_path)
    delrec("teach", *AT_URL)
    local = next((tmp_path / "cache" / "delrec_jax" / "workdirs").glob("one-*"))
    files = {
        path.relative_to(local).as_posix(): path.read_bytes()
        for path in local.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert {name: bucket.content(name) for name in bucket.names()} == files
    assert bucket.content(RESULT) == (tiny_run / RESULT).read_bytes()
    for folder, result in (("data", "split.npz"), ("teacher", "teacher.json")):
        puts = [name for _, name in bucket.did("put") if name.startswith(f"{folder}/")]
        assert puts[0] == puts[-1] == f"{folder}/stage.json"  # unfinished, finished
        assert puts.count(puts[0]) == 2 and f"{folder}/{result}" in puts
    forget(tmp_path)
    bucket.log.clear()
    capsys.readouterr()
    for stage in ("prepare", "teach"):
        delrec(stage, *AT_URL)
        assert f"{stage}: finished before, skipped" in capsys.readouterr().err
    assert bucket.did("put", "delete") == []


def test_a_finished_run_can_be_used_from_anywhere(bucket, tiny_run, tmp_path, capsys):
    bucket.store_folder(tiny_run)
    title = load_data(open_workspace(tiny_run)).corpus.catalogue.titles[1]
    delrec("recommend", f"--workdir={URL}", f"--history={title}", "-k", "3")
    listed = capsys.readouterr().out
    delrec("recommend", f"--workdir={tiny_run}", f"--history={title}", "-k", "3")
    assert listed and listed == capsys.readouterr().out
    assert not [n for _, n in bucket.did("get") if "/checkpoints/" in n]
    assert bucket.did("put", "delete") == [] and not [n for _, n in bucket.log if n == "lease.json"]
    forget(tmp_path)
    delrec("run", CONFIG, f"--workdir={URL}", *TINY, f"--cache={tmp_path / 'cache' / 'mine'}")
    said = capsys.readouterr().err
    assert (
        said.count("finished before, skipped") == 7 and not (tmp_path / "cache/delrec_jax").exists()
    )
    assert {n.split("/")[0] for _, n in bucket.did("put", "delete")} == {"report"}
    delrec("report", f"--workdir={URL}")
    assert marker(bucket, "report")["finished"]
    expected = (tiny_run / "report" / "metrics.json").read_bytes()
    assert bucket.content("report/metrics.json") == expected


def test_a_killed_run_goes_on_elsewhere_from_the_buckets_checkpoint(
    bucket, tiny_run, tmp_path, monkeypatch
):
    begin(bucket, tiny_run, "config.json", "data")
    environment = {**os.environ, **QUICK_ENVIRONMENT}
    console = Path(sys.executable).with_name("delrec")
    process = []

    def kill_before_the_result_is_there(verb, name):
        if (verb, name) == ("put", RESULT) and process:
            process[0].kill()
            process[0].wait()
            raise ConnectionAbortedError

    bucket.before = kill_before_the_result_is_there
    with (tmp_path / "log").open("w") as log:
        process.append(
            subprocess.Popen([console, "teach", *AT_URL], stderr=log, stdout=log, env=environment)
        )
        assert process[0].wait(DEADLINE) == -signal.SIGKILL, (tmp_path / "log").read_text()
    process.clear()
    assert not marker(bucket, "teacher")["finished"] and RESULT not in bucket.names()
    assert f"{CHECKPOINTS}/5/_CHECKPOINT_METADATA" in bucket.names()
    assert "lease.json" in bucket.names()  # nobody could give it back
    bucket.age("lease.json", 3600)
    forget(tmp_path)
    restored, restore = [], loop.Checkpoints.restore

    def noting(self, like, step=None):
        restored.append(self.latest_step)
        return restore(self, like, step)

    monkeypatch.setattr(loop.Checkpoints, "restore", noting)
    delrec("teach", *AT_URL)
    assert restored[0] == 5
    for name in (RESULT, "teacher/teacher.json"):
        assert bucket.content(name) == (tiny_run / name).read_bytes()
    assert marker(bucket, "teacher") == json.loads((tiny_run / "teacher/stage.json").read_text())


def test_a_run_that_is_told_to_end_leaves_its_checkpoint_and_the_lease(
    bucket, tiny_run, tmp_path, capsys
):
    begin(bucket, tiny_run, "config.json", "data")
    told = []

    def tell(verb, name):
        if verb == "put" and name == f"{CHECKPOINTS}/0/_CHECKPOINT_METADATA" and not told:
            told.append(name)
            os.kill(os.getpid(), signal.SIGTERM)

    bucket.before = tell
    with pytest.raises(SystemExit) as ended:
        delrec("teach", *AT_URL)
    assert ended.value.code == 75 and "saved at step" in capsys.readouterr().err
    steps = {int(n.split("/")[3]) for n in bucket.names() if n.startswith(f"{CHECKPOINTS}/")}
    assert max(steps) > 0 and "lease.json" not in bucket.names()
    bucket.before = lambda verb, name: None
    forget(tmp_path)
    delrec("teach", *AT_URL)
    assert bucket.content(RESULT) == (tiny_run / RESULT).read_bytes()


@pytest.mark.parametrize("name", [RESULT, f"{CHECKPOINTS}/0/_CHECKPOINT_METADATA"])
def test_a_put_that_is_refused_ends_the_run_in_one_line(bucket, tiny_run, capsys, name):
    begin(bucket, tiny_run, "config.json", "data")
    bucket.refuse("put", name, 403)
    assert f"{URL}/{name}: permission denied" in mistake(capsys, "teach", *AT_URL)
    assert not marker(bucket, "teacher")["finished"] and "lease.json" not in bucket.names()
    bucket.refusals.clear()
    delrec("teach", *AT_URL)
    assert bucket.content(RESULT) == (tiny_run / RESULT).read_bytes()


def test_a_stage_that_is_redone_is_unfinished_in_the_bucket_first(bucket, tiny_run):
    begin(bucket, tiny_run, "config.json", "data", "teacher", "closed_forms")
    delrec("fit", *AT_URL, *FEW_BASELINES, "--update")
    mine = [entry for entry in bucket.did("put", "delete") if entry[1].startswith("closed_forms")]
    assert mine[0] == ("delete", "closed_forms/stage.json")
    assert mine[-1] == ("put", "closed_forms/stage.json")
    assert ("put", "config.json") in bucket.did("put")


def test_a_bucket_that_another_run_uses(bucket, capsys, monkeypatch):
    quick = {"expires": 600.0, "every": 0.02}
    monkeypatch.setattr(opening, "Lease", partial(Lease, **quick))
    with Lease(Bucket(URL), **quick):
        line = mistake(capsys, "prepare", *AT_URL)
    assert f"--workdir={URL}: another run is using it (process {os.getpid()} on " in line


def test_a_local_copy_that_another_run_uses(bucket, capsys):
    local = opening.local_copy(URL, "")
    with opening.locked(local):
        line = mistake(capsys, "prepare", *AT_URL)
        assert f"--workdir={URL}: another run is using it (process {os.getpid()} on " in line
        assert "another run is using it" in mistake(capsys, "prompts", *AT_URL)
    assert bucket.did("put", "get") == []


def test_commands_say_what_is_wrong_with_the_bucket(bucket, capsys):
    assert f"{URL}/config.json is not there" in mistake(capsys, "report", f"--workdir={URL}")
    bucket.store("config.json", b"{")
    assert "config.json: cannot be read" in mistake(capsys, "report", f"--workdir={URL}")
    bucket.refuse("list", ".*", 403)
    assert "roles/storage.objectUser" in mistake(capsys, "prepare", *AT_URL)
    bucket.refuse("look", ".*", 403)
    assert "permission denied" in mistake(capsys, "recommend", f"--workdir={URL}")
