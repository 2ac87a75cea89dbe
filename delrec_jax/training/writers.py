"""Progress for people, numbers for machines: a rich bar or plain lines, `metrics.jsonl`."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from delrec_jax.distributed import is_main
from delrec_jax.printable import printable

_BAR_EVERY_SECONDS = 1.0
_PLAIN_EVERY_SECONDS = 10.0


class MetricsFile:
    """A file with one JSON object per line; on resume the rows after the checkpoint are dropped."""

    def __init__(self, path: Path | None, rows: list[dict[str, Any]] | None = None):
        """Rewrites the file with the rows of the checkpoint; without a path only collects rows."""
        self.path = path
        self.rows = list(rows or [])
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row."""
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")


class ProgressBar:
    """A bar on a terminal, or a line every ten seconds elsewhere; a context manager."""

    def __init__(
        self,
        name: str,
        total: int,
        start: int = 0,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Takes the name of the work, its number of steps, and the number of steps already done."""
        self.name, self.total, self.start = name, total, start
        self._clock, self._last = clock, clock()
        self._first: tuple[int, float] | None = None
        self._bar: Progress | None = None
        console = console or Console(file=sys.stderr)
        if console.is_terminal and not console.is_dumb_terminal:
            self._last -= _BAR_EVERY_SECONDS  # show the first numbers at once
            self._bar = _rich_bar(console)
            self._task = self._bar.add_task(name, total=total, completed=start, note="", left="")

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, note: str | Callable[[], str]) -> None:
        """Shows that `done` steps are done, if the last display is old enough (a bar always shows the last step).

        Args:
          done: number of steps done.
          note: the latest numbers; a callable, for numbers that are costly, is called only when they are shown.
        """
        if self._first is None and done > self.start:
            # The time left is estimated from here on, without one-time work such as compiling.
            self._first = (done, self._clock())
        every = _BAR_EVERY_SECONDS if self._bar else _PLAIN_EVERY_SECONDS
        finished = self._bar is not None and done >= self.total
        if self._clock() - self._last < every and not finished:
            return
        text = note() if callable(note) else note
        self._last = self._clock()
        left = self._time_left(done)
        if self._bar:
            self._bar.update(self._task, completed=done, note=text, left=left, refresh=True)
        else:
            shown = [f"step {done}/{self.total}", text, left]
            say(f"  {self.name}: " + "  ".join(part for part in shown if part))

    def _time_left(self, done: int) -> str:
        if self._first is None or done <= self._first[0]:
            return ""
        pace = (self._last - self._first[1]) / (done - self._first[0])
        minutes, seconds = divmod(round(pace * max(self.total - done, 0)), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left"


def _rich_bar(console: Console) -> Progress:
    # No redrawing thread: nothing moves between two updates. No markup: names and notes may contain brackets.
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=min(max(console.width - 90, 10), 40)),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=False)),
        console=console,
        auto_refresh=False,
    )


def say(message: str) -> None:
    """Prints one line to stderr for the person watching; of several processes only the main one prints."""
    if is_main():
        print(printable(message), file=sys.stderr, flush=True)
