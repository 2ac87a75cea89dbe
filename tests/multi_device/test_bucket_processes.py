"""Two processes with one workdir in a bucket: process 0 alone writes to it, and both need one local copy."""

import json

import numpy as np
from gcs_fake import URL, serving
from two_processes import DEADLINE, said, start


def test_two_processes_teach_in_a_bucket(tiny_run, tmp_path):
    with serving() as bucket:
        for name in ("config.json", *(p for p in (tiny_run / "data").rglob("*") if p.is_file())):
            path = tiny_run / name
            bucket.store(path.relative_to(tiny_run).as_posix(), path.read_bytes())
        shared = {"STORAGE_EMULATOR_HOST": bucket.endpoint, "XDG_CACHE_HOME": str(tmp_path)}
        both = start("teach", URL, tmp_path / "log", environments=(shared, shared))
        status = [one.wait(DEADLINE) for one in both]
        assert status == [0, 0], said(tmp_path / "log", 0) + said(tmp_path / "log", 1)
        assert json.loads(bucket.content("teacher/stage.json"))["finished"]
        assert bucket.did("put")[-1] == ("put", "teacher/stage.json")
        assert "teacher/model/checkpoints/5/_CHECKPOINT_METADATA" in bucket.names()
        rows = bucket.content("teacher/model/metrics.jsonl").splitlines()
        alone = (tiny_run / "teacher" / "model" / "metrics.jsonl").read_text().splitlines()
        for ours, theirs in zip(map(json.loads, rows), map(json.loads, alone), strict=True):
            np.testing.assert_allclose(ours["valid/NDCG@10"], theirs["valid/NDCG@10"], atol=1e-4)
        assert "lease.json" not in bucket.names()


def test_processes_that_do_not_see_one_local_copy_are_refused(tmp_path):
    with serving() as bucket:
        own = [
            {"STORAGE_EMULATOR_HOST": bucket.endpoint, "XDG_CACHE_HOME": str(tmp_path / str(n))}
            for n in range(2)
        ]
        both = start("prepare", URL, tmp_path / "log", environments=own)
        assert [one.wait(DEADLINE) for one in both] == [2, 2]
        for number in range(2):
            assert f"--workdir={URL}: several processes need one local copy" in said(
                tmp_path / "log", number
            )
        assert not bucket.log
