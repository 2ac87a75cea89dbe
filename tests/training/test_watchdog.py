"""The watchdog: it ends what hangs, with a message, and nothing that only takes long, or was stopped for a while."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from compiling import QUICK_ENVIRONMENT
from numbered import Numbered, log, saved, train

from delrec_jax.endings import HUNG, bounded
from delrec_jax.training import watchdog as module
from delrec_jax.training.watchdog import FIRST, Watchdog
from delrec_jax.training.watching import Watch

DEADLINE = 600


class Dog(Watchdog):
    """A watchdog that only notes how it would end the process."""

    def __init__(self, directory, limit, **more):
        self.ended = []
        super().__init__(
            "tiny/test", directory, limit, end=lambda *told: self.ended.append(told), **more
        )

    def pass_by(self, seconds):
        """Ticks of one second."""
        for _ in range(seconds):
            if not self.ended:
                self.count(1.0)


@pytest.fixture
def dog(tmp_path):
    """Has seen a train step before."""
    dog = Dog(tmp_path, 20)
    dog.begin("a train step", 1)
    dog.begin("a train step", 2)
    return dog


def test_work_that_takes_too_long_ends_the_process(dog, tmp_path):
    dog.pass_by(20)
    assert not dog.ended
    dog.pass_by(1)
    ((message, status),) = dog.ended
    assert status == HUNG == 70
    assert message.startswith(
        "tiny/test: a train step hangs at step 2: no end for 21 s; the stacks of all threads are in "
        f"{tmp_path / 'hang.txt'}. Start the same command again: it resumes from the last complete checkpoint in "
        f"{tmp_path / 'checkpoints'}. If it was only slow, raise config.hang_after (20; 0 = wait forever)"
    )
    assert "\n" not in message
    stacks = (tmp_path / "hang.txt").read_text()
    assert "tiny/test: a train step hangs at step 2" in stacks and "pass_by" not in message
    assert "test_work_that_takes_too_long_ends_the_process" in stacks


def test_each_piece_of_work_has_its_own_time(dog):
    for step in range(3, 50):
        dog.pass_by(19)
        dog.begin("a train step", step)
    assert not dog.ended


def test_what_happens_for_the_first_time_may_compile(dog):
    dog.begin("a train step", 3, shapes=((2, 96),))
    dog.pass_by(FIRST * 20)
    assert not dog.ended
    dog.begin("a train step", 4, shapes=((2, 96),))
    dog.begin("the evaluation", 4)
    dog.pass_by(FIRST * 20)
    assert not dog.ended
    dog.pass_by(1)
    assert dog.ended[0][0].startswith("tiny/test: the evaluation hangs at step 4: no end for 81 s")


def test_what_took_long_before_may_take_long_again(dog):
    for step in (5, 10):
        dog.begin("the evaluation", step)
        dog.pass_by(30)
        dog.begin("a train step", step + 1)
    dog.begin("the evaluation", 15)
    dog.pass_by(FIRST * 30)
    assert not dog.ended
    dog.pass_by(1)
    assert dog.ended


def test_a_process_that_was_stopped_has_not_hung(dog):
    for _ in range(5):
        dog.count(3600.0)
    assert not dog.ended, "an hour in which nobody looked is one tick"


def test_a_clock_that_is_set_back_counts_nothing(dog):
    for _ in range(100):
        dog.count(-3600.0)
    dog.pass_by(20)
    assert not dog.ended
    dog.pass_by(1)
    assert dog.ended


def test_the_thread_counts_what_its_clock_says(tmp_path):
    """On a clock of its own, that runs a hundred times as fast."""
    ended = threading.Event()
    told = []

    def end(message, status):
        told.append(message)
        ended.set()

    with Watchdog("tiny/test", tmp_path, 1.0, clock=lambda: 100 * time.monotonic(), end=end) as dog:
        dog.begin("a train step", 1)
        assert ended.wait(DEADLINE)
    assert "a train step hangs at step 1" in told[0]


def test_without_a_limit_there_is_no_thread_and_nothing_ends(tmp_path):
    before = threading.active_count()
    with Dog(tmp_path, 0.0) as dog:
        dog.begin("a train step", 1)
        dog.follow("writing a checkpoint", 1, lambda: True)
        assert threading.active_count() == before
        dog.pass_by(10_000)
    assert not dog.ended


def test_work_in_the_background_is_watched_beside_the_steps(dog):
    asked, over = threading.Event(), threading.Event()

    def never_answers():
        asked.set()
        over.wait()
        return False

    dog.follow("writing a checkpoint", 4, never_answers)
    assert asked.wait(DEADLINE)
    for step in range(5, 5 + 20 + 1):
        dog.begin("a train step", step)
        dog.pass_by(1)
    assert [message.split(":")[1] for message, _ in dog.ended] == [
        " writing a checkpoint hangs at step 4"
    ]
    over.set()


def test_work_in_the_background_that_ends_is_forgotten(dog):
    busy, before = iter([True, True, False]), set(threading.enumerate())
    dog.follow("writing a checkpoint", 4, lambda: next(busy))
    for follower in set(threading.enumerate()) - before:
        follower.join(DEADLINE)
    for step in range(5, 500):
        dog.begin("a train step", step)
        dog.pass_by(1)
    assert not dog.ended


def test_saves_that_follow_on_one_another_are_not_one_long_save(dog):
    """Orbax only says that something is being written, and the next save waits for the one before."""
    over = threading.Event()
    for step in range(5, 50):
        dog.begin("saving a checkpoint", step)
        dog.follow("writing a checkpoint", step, lambda: not over.is_set())
        dog.pass_by(15)
    assert not dog.ended
    over.set()


def test_stacks_that_cannot_be_written_go_to_stderr(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    dog = Dog(tmp_path / "file", 20)
    dog.begin("a train step", 1)
    dog.pass_by(FIRST * 20 + 1)
    assert "are above, as" in dog.ended[0][0] and "could not be written" in dog.ended[0][0]
    assert "test_stacks_that_cannot_be_written_go_to_stderr" in capfd.readouterr().err


def test_the_thread_that_trains_comes_first_however_many_there_are(tmp_path):
    """JAX, Orbax and TFDS may have more threads than the 100 at which `faulthandler` stops."""
    over = threading.Event()
    others = [
        threading.Thread(target=over.wait, name=f"other {number}", daemon=True)
        for number in range(120)
    ]
    for other in others:
        other.start()
    dog = Dog(tmp_path, 20)
    dog.begin("a train step", 1)
    dog.pass_by(FIRST * 20 + 1)
    over.set()
    first, *rest = (tmp_path / "hang.txt").read_text().split("\nThread ")[1:]
    assert first.startswith("MainThread:") and "test_the_thread_that_trains_comes_first" in first
    assert {other.name for other in others} <= {stack.partition(":")[0] for stack in rest}


def test_an_earlier_hang_is_not_forgotten(tmp_path):
    for step in (1, 2):
        dog = Dog(tmp_path, 20)
        dog.begin("a train step", step)
        dog.pass_by(FIRST * 20 + 1)
    assert (tmp_path / "hang.txt").read_text().count("a train step hangs at step") == 2


def test_last_words_do_not_hang_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "bounded", lambda action: bounded(action, 0.01))
    dog = Dog(tmp_path, 20, flush=threading.Event().wait)
    dog.begin("a train step", 1)
    dog.pass_by(FIRST * 20 + 1)
    assert dog.ended


def test_a_watched_run_gives_the_same_bits(tmp_path):
    plain, meta = train(tmp_path / "plain", Numbered())
    watched, meta_watched = train(
        tmp_path / "watched", Numbered(), watch=Watch(hang_after=DEADLINE)
    )
    np.testing.assert_array_equal(watched["w"], plain["w"])
    assert meta == meta_watched
    assert not list(tmp_path.rglob("hang*"))


@pytest.mark.parametrize(
    ("where", "what", "rows", "checkpoints"),
    [
        ("step", "a train step hangs at step 7", [0, 5], [4]),
        pytest.param(
            *("batch", "drawing a batch hangs at step 10", [0, 5], [4, 8]), marks=pytest.mark.slow
        ),
        pytest.param(
            *("save", "saving a checkpoint hangs at step 4", [0], []), marks=pytest.mark.slow
        ),
        pytest.param(
            *("write", "writing a checkpoint hangs at step 12", [0, 5, 10, 15, 16], None),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_process_that_hangs_ends_with_what_it_has_done(tmp_path, where, what, rows, checkpoints):
    script = Path(__file__).with_name("hanging.py")
    found = subprocess.run(
        [sys.executable, script, where, tmp_path],
        env={**os.environ, **QUICK_ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert found.returncode == HUNG, found.stderr
    said = [line for line in found.stderr.splitlines() if line.startswith("delrec: ")]
    assert len(said) == 1 and said[0].startswith(f"delrec: tiny/numbered: {what}: no end for ")
    assert "in hang_" in (tmp_path / "hang.txt").read_text()
    assert [row["step"] for row in log(tmp_path)][: len(rows)] == rows
    assert checkpoints in (None, saved(tmp_path))
