"""A workdir that was moved or copied, or that cannot be written, still answers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiling import QUICK_ENVIRONMENT
from tiny_storefront import delrec

import delrec_jax

SCRIPT = Path(__file__).with_name("reading.py")
DEADLINE = 600
OWN_MOUNTS = ["unshare", "--mount", "--propagation", "private"]
BOUND = 'mount --bind -o ro "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
# Root may write whatever the modes say, unless it gives that up.
OBEDIENT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def works(*command):
    """Whether a command can be run here, with its privileges."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "true"], capture_output=True).returncode == 0


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def room(tiny_run, tmp_path):
    """A folder with a copy of the finished run, without what reading commands would keep for the next one."""
    room = tmp_path / "room"
    shutil.copytree(tiny_run, room / "run", ignore=shutil.ignore_patterns("title_vectors.npz"))
    return room


@pytest.fixture
def answer(tiny_run):
    recommender = delrec_jax.load(tiny_run)
    history = [recommender.titles[item] for item in (3, 1)]
    return recommender.recommend(history, k=3).select("item", "score").to_dicts()


def read(before, room, output):
    """Runs all reading commands under `before`, and returns the answer; nothing in the room may change."""
    output.mkdir()
    there = contents(room)
    own = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    run = subprocess.run(
        [*before, sys.executable, SCRIPT, room / "run", output],
        env={**own, **QUICK_ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert run.returncode == 0, run.stderr
    for word in ("Traceback", "Warning", "Read-only file", "denied"):
        assert word not in run.stderr, run.stderr
    assert contents(room) == there
    assert {path.name for path in output.iterdir()} >= {"lists", "hf", "adapter", "hub", "compared"}
    return json.loads(run.stdout.splitlines()[-1])


def test_a_read_only_mount(room, tmp_path, answer):
    if not works(*OWN_MOUNTS, "sh", "-c", BOUND, room):
        pytest.skip("mounting a folder read-only needs root and a mount namespace")
    assert read([*OWN_MOUNTS, "sh", "-c", BOUND, room], room, tmp_path / "out") == answer


@pytest.mark.slow
def test_folders_without_write_permission(room, tmp_path, answer):
    before = [] if os.geteuid() else OBEDIENT
    if before and not works(*before):
        pytest.skip("root ignores modes, and setpriv cannot take that from it here")
    for path in (room, *room.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        assert read(before, room, tmp_path / "out") == answer
    finally:
        for path in (room, *room.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)


def other_file_system(path):
    """A folder on another file system than this path; None if there is none to write to."""
    place = Path("/dev/shm")
    usable = place.is_dir() and os.access(place, os.W_OK)
    return place if usable and place.stat().st_dev != path.stat().st_dev else None


@pytest.mark.parametrize(
    "how", ["copied", *(pytest.param(how, marks=pytest.mark.slow) for how in ("moved", "linked"))]
)
def test_another_place(room, tmp_path, answer, how, capsys):
    """Nothing that is stored depends on where it is: every stage is still finished there, and the answer is the same."""
    place = tmp_path / "another" / "näme with spaces"
    elsewhere = other_file_system(tmp_path) if how == "copied" else None
    if elsewhere is not None:
        place = elsewhere / f"delrec-test-{os.getpid()}"
    try:
        place.parent.mkdir(exist_ok=True)
        if how == "linked":
            place.symlink_to(room / "run")
        else:
            put = shutil.move if how == "moved" else shutil.copytree
            put(room / "run", place)
        recommender = delrec_jax.load(place)
        history = [recommender.titles[item] for item in (3, 1)]
        assert recommender.recommend(history, k=3).select("item", "score").to_dicts() == answer
        delrec("evaluate", f"--workdir={place}")
        assert "evaluate: finished before, skipped" in capsys.readouterr().err
    finally:
        if elsewhere is not None:
            shutil.rmtree(place, ignore_errors=True)
