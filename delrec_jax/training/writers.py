"""Progress for people, numbers for machines: a rich bar or plain lines, and `metrics.jsonl`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_EVERY_SECONDS = 10.0


class MetricsFile:
    """One JSON object a line; on resume the rows after the checkpoint are dropped."""

    def __init__(self, path: Path, rows: list[dict[str, Any]] | None = None):
        """Starts the file anew with the rows that a checkpoint remembers."""
        self.path = path
        self.rows = list(rows or [])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class ProgressBar:
    """A bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, name: str, total: int, start: int = 0):
        """Names the work and its number of steps."""
        self.name, self.total, self.start = name, total, start
        self._last = time.monotonic()
        self._bar = None
        if Console(file=sys.stderr).is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(file=sys.stderr),
            )
            self._task = self._bar.add_task(name, total=total, completed=start, note="")

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, note: str) -> None:
        """Shows that `step` steps are done; `note` holds the latest numbers."""
        if self._bar:
            self._bar.update(self._task, completed=step, note=note)
        elif time.monotonic() - self._last > _PLAIN_EVERY_SECONDS:
            self._last = time.monotonic()
            print(f"  {self.name}: step {step}/{self.total}  {note}", file=sys.stderr, flush=True)


def say(message: str) -> None:
    """One line to the person who watches."""
    print(message, file=sys.stderr, flush=True)
