"""What a study has run: one line per stage, with its time, from which the time left is estimated and provenance is told."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAME = "journal.jsonl"


def note(root: Path, **facts: Any) -> None:
    """Appends one line; processes that write at the same time do not mix their lines.

    Args:
      root: the study's workdir.
      facts: what happened.
    """
    line = _after_torn(root / NAME) + json.dumps(facts, sort_keys=True) + "\n"
    # One write to a file that is open for appending: lines of this length stay whole.
    descriptor = os.open(root / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _after_torn(path: Path) -> str:
    """A line end where a killed process left its line unfinished: what follows is another line."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return "" if file.read() == b"\n" else "\n"
    except OSError:  # none yet, or an empty one
        return ""


def read(root: Path) -> list[dict[str, Any]]:
    """All lines that `note` wrote, oldest first.

    Others are passed over: what a killed process or a full disk left unfinished, and what is left where two machines wrote at
    the same place of a network's file system. Times and provenance are not worth the end of a study.
    """
    path = root / NAME
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [row for row in map(_row, lines) if row is not None]


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    told = isinstance(row, dict) and isinstance(row.get("stage"), str)
    return row if told and isinstance(row.get("seconds"), int | float) else None


def other_code(lines: Iterable[Mapping[str, Any]], now: Mapping[str, Any]) -> list[str]:
    """The commits, shortened, of stages that were made by other code than that which runs now.

    Args:
      lines: of the journal.
      now: `results.provenance.commit()`; a working tree that differs from its commit is other code than any.
    """
    made = {(line.get("commit", "unknown"), bool(line.get("dirty"))) for line in lines}
    other = {one for one in made if one[1] or one != (now["commit"], now["dirty"])}
    return sorted(name[:10] + (", changed" if dirty else "") for name, dirty in other)


def seconds_left(lines: Iterable[dict[str, Any]], stages: Iterable[str], jobs: int) -> float | None:
    """The estimated time of stages that are still to run: the mean time of each so far, over the processes.

    Args:
      lines: of the journal.
      stages: their names, one per time that they have to run.
      jobs: number of processes.

    Returns:
      Seconds; None if one of them has not run yet.
    """
    times = defaultdict(list)
    for line in lines:
        times[line["stage"]].append(line["seconds"])
    left = 0.0
    for stage in stages:
        if stage not in times:
            return None
        left += sum(times[stage]) / len(times[stage])
    return left / jobs
