import io
import json
import re

import pytest
from rich.console import Console

from delrec_jax.training.writers import MetricsFile, ProgressBar, say


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def terminal(width=120):
    return Console(file=io.StringIO(), force_terminal=True, width=width, _environ={"TERM": "xterm"})


def screen(console):
    """The latest state of the bar, without the terminal's control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue()).split("\r")[-1].rstrip()


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    log = MetricsFile(path)
    for step in range(3):
        log.write({"step": step})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]
    again = MetricsFile(path, [{"step": 0}])
    again.write({"step": 1, "loss": 0.5})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == again.rows == [{"step": 0}, {"step": 1, "loss": 0.5}]


def test_rows_without_a_path_are_only_collected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = MetricsFile(None, [{"step": 0}])
    log.write({"step": 1})
    assert log.rows == [{"step": 0}, {"step": 1}] and not list(tmp_path.iterdir())


def test_plain_lines_off_a_terminal_every_ten_seconds(capsys):
    clock = Clock()
    with ProgressBar("prompt", 50, clock=clock) as bar:
        bar.update(1, "loss 9")
        clock.now += 9.9
        bar.update(2, "loss 8")
        clock.now += 0.1
        bar.update(11, "loss 7")
        bar.update(50, "loss 6")
        clock.now += 10
        bar.update(50, "loss 5")
    # Ten steps in the ten seconds since the first: 39 seconds for 39 more.
    assert capsys.readouterr().err == (
        "  prompt: step 11/50  loss 7  0:00:39 left\n  prompt: step 50/50  loss 5  0:00:00 left\n"
    )


def test_time_left_leaves_out_what_came_before_the_first_step(capsys):
    clock = Clock()
    bar = ProgressBar("lm", 1000, start=300, clock=clock)
    clock.now += 50
    bar.update(300, "")  # an evaluation before the first step of this process
    clock.now += 500  # compiling
    bar.update(301, "")
    clock.now += 90
    bar.update(311, "")  # 9 s a step, 689 steps to go
    clock.now += 360_000
    bar.update(401, "")  # 3600.9 s a step, 599 to go: more than a day
    assert capsys.readouterr().err.splitlines() == [
        "  lm: step 300/1000",
        "  lm: step 301/1000",
        "  lm: step 311/1000  1:43:21 left",
        "  lm: step 401/1000  599:08:59 left",
    ]


def test_a_note_is_asked_for_only_when_it_is_shown_and_may_take_time(capsys):
    clock, asked = Clock(), []
    bar = ProgressBar("lm", 9, clock=clock)

    def note():
        asked.append(clock.now)
        clock.now += 4  # waits for the device
        return "loss 2"

    bar.update(1, note)
    clock.now += 10
    bar.update(3, note)
    clock.now += 9
    bar.update(4, note)
    assert asked == [110.0]
    # The wait belongs to the two steps: 14 s for 2, 42 s for the other 6.
    assert capsys.readouterr().err == "  lm: step 3/9  loss 2  0:00:42 left\n"


def test_the_bar_of_a_terminal(capsys):
    clock, console = Clock(), terminal()
    with ProgressBar("prompt/distilled", 600, console=console, clock=clock) as bar:
        bar.update(1, "loss 3.000")
        assert "prompt/distilled" in screen(console)
        assert "1/600" in screen(console) and "loss 3.000" in screen(console)
        clock.now += 0.9
        bar.update(2, "too early")
        assert "2/600" not in screen(console) and "too early" not in screen(console)
        clock.now += 9.1
        bar.update(41, "loss 2.310")
        shown = screen(console)
        assert " 41/600 " in shown and "loss 2.310" in shown and "━" in shown
        assert "0:02:20 left" in shown  # 40 steps in 10 s, 559 to go
        bar.update(600, "the end")  # at once, though no second has passed
        assert "600/600" in screen(console) and "the end" in screen(console)
    assert capsys.readouterr().err == ""


def test_a_narrow_terminal_cuts_nothing_and_needs_two_lines():
    clock, console = Clock(), terminal(width=80)
    note = "loss 2.310  valid/selection 0.412  812 examples/s"
    with ProgressBar("prompt/distilled", 600, console=console, clock=clock) as bar:
        bar.update(1, note)
        before = len(console.file.getvalue())
        clock.now += 10
        bar.update(40, note)
        shown = console.file.getvalue()[before:]
    assert all(part in shown for part in ("prompt/distilled", "40/600", "left", *note.split()))
    assert "…" not in shown and shown.count("\n") == 1


def test_brackets_are_text():
    console = terminal()
    with ProgressBar("a[bold]b", 2, console=console, clock=Clock()) as bar:
        bar.update(1, "[/red] x")
    assert "a[bold]b" in screen(console) and "[/red] x" in screen(console)


@pytest.mark.parametrize("on_terminal", [True, False])
def test_nothing_to_do_and_numbers_that_are_none(on_terminal, capsys):
    clock, console = Clock(), terminal()
    more = {"console": console} if on_terminal else {}
    with ProgressBar("empty", 0, clock=clock, **more) as bar:
        for done in (0, 0, 1, 2):
            clock.now += 10
            bar.update(done, f"loss {float('nan'):.3f}")
    shown = screen(console) if on_terminal else capsys.readouterr().err
    assert "2/0" in shown and "loss nan" in shown and "0:00:00 left" in shown


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(capsys):
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    clock = Clock()
    with ProgressBar("lm", 3, console=dumb, clock=clock) as bar:
        clock.now += 10
        bar.update(1, "loss 1")
    assert capsys.readouterr().err == "  lm: step 1/3  loss 1\n" and dumb.file.getvalue() == ""


def test_messages_go_to_stderr_alone(capsys):
    say("prepare ...")
    assert capsys.readouterr() == ("", "prepare ...\n")
