"""What a study has run: one line per stage, with its time, from which the time left is estimated and provenance is told."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from delrec_jax.errors import UserError

NAME = "journal.jsonl"


def note(root: Path, **facts: Any) -> None:
    """Appends one line; processes that write at the same time do not mix their lines.

    Args:
      root: the study's workdir.
      facts: what happened.
    """
    line = json.dumps(facts, sort_keys=True) + "\n"
    # One write to a file that is open for appending: lines of this length stay whole.
    descriptor = os.open(root / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read(root: Path) -> list[dict[str, Any]]:
    """All lines, oldest first; a last line that a killed process left unfinished is passed over.

    Raises:
      UserError: the file is not text, or a line is not JSON.
    """
    path = root / NAME
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path}: not text ({error}); remove it") from error
    found = []
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if not line.endswith("\n"):
                break
            raise UserError(f"{path}, line {number}: not JSON ({error}); remove it") from error
    return found


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
