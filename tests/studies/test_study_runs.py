"""Studies that are run: each stage once, a failed arm alone fails, and killed ones end with the same tables."""

import json
import random
import signal
import time
from collections import Counter

import pytest
from study_files import WIDTHS, start, study_file

ONE_SEED = WIDTHS.replace("seeds=(0, 1)", "seeds=(0,)")
BROKEN = ONE_SEED.replace(
    '"teacher.sasrec.width": 32', '"teacher.name": "lists", "teacher.lists": "missing.parquet"'
)
TABLES = ("summary.json", "tables.md")


def stages_run(root):
    """How often each stage was run, by the journal."""
    lines = (root / "journal.jsonl").read_text().splitlines()
    return Counter(json.loads(line)["stage"] for line in lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that ran to its end, and what it said."""
    folder = tmp_path_factory.mktemp("study")
    process = start(study_file(folder, ONE_SEED), folder / "s", "--jobs=2")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return folder / "s", said


def test_nothing_is_run_twice(finished):
    root, said = finished
    assert stages_run(root) == {"prepare": 1, "fit": 1, "teach": 2, "baseline": 3}
    assert "[5/5]" in said
    summary = json.loads((root / "summary.json").read_text())
    rows = {row["system"]: row for row in summary["systems"] if row["protocol"] == "full"}
    assert rows["teacher/narrow"]["HR@10"] == rows["teacher/narrow_again"]["HR@10"]
    tested = {row["system"]: row for row in summary["comparisons"]}
    assert "teacher/narrow_again" not in tested  # the same ranks: nothing to test
    assert tested["teacher/wide"]["difference"] and tested["teacher/wide"]["seeds"] == [0]
    groups = {row["group"]: row["users"] for row in summary["systems"] if " " in row["group"]}
    left_out = {row["group"]: row["users"] for row in summary["left_out"] if " " in row["group"]}
    counts = {**groups, **left_out}
    for kind in ("history", "count"):  # every user is in one group of each kind
        assert sum(n for name, n in counts.items() if name.startswith(kind)) == summary["users"]
    assert "by groups of users" in (root / "tables.md").read_text()
    page = (root / "index.html").read_text()
    assert "Does the width of the teacher matter?" in page and "NDCG@10 by width" in page
    assert "systems.csv" in {path.name for path in root.iterdir()}


def test_a_failed_arm_stops_what_depends_on_it_and_nothing_else(tmp_path):
    process = start(study_file(tmp_path, BROKEN), tmp_path / "s")
    said, _ = process.communicate()
    assert process.returncode == 2
    assert "wide-0: teach, baseline: FAILED: delrec: " in said and "missing.parquet" in said
    assert stages_run(tmp_path / "s") == {"prepare": 1, "fit": 1, "teach": 1, "baseline": 2}
    summary = json.loads((tmp_path / "s" / "summary.json").read_text())
    assert summary["study"]["unfinished"] == ["wide-0"]


@pytest.mark.slow
def test_shards_together_are_the_study(finished, tmp_path):
    root, _ = finished
    both = [
        start(study_file(tmp_path, ONE_SEED), tmp_path / "s", f"--shard={index}/2")
        for index in range(2)
    ]
    for process in both:
        said, _ = process.communicate()
        assert process.returncode == 0, said
    assert stages_run(tmp_path / "s") == stages_run(root)
    process = start(study_file(tmp_path, ONE_SEED), tmp_path / "s")
    said, _ = process.communicate()
    assert "0 to do" in said
    for name in TABLES:
        assert (tmp_path / "s" / name).read_bytes() == (root / name).read_bytes()


@pytest.mark.slow
def test_a_study_that_is_killed_ten_times_ends_with_the_same_tables(finished, tmp_path):
    root, _ = finished
    rng, path = random.Random(0), study_file(tmp_path, ONE_SEED)
    for kill in range(10):
        process = start(path, tmp_path / "s", "--jobs=2")
        time.sleep(rng.uniform(2, 12))
        process.send_signal(signal.SIGKILL if kill % 2 else signal.SIGTERM)
        process.communicate()
    process = start(path, tmp_path / "s", "--jobs=2")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    for name in TABLES:
        assert (tmp_path / "s" / name).read_bytes() == (root / name).read_bytes()
