"""Which files of tests execute which lines, and how long each takes: each is run once in a process of its own.

In one process for all, a function that one file had JAX trace would not be traced for the next, and look untouched by it.
"""

import ast
import json
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

QUICK = "not slow and not real_data and not parity and not gpu"
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", QUICK)
EVERYWHERE = range(1, 1_000_000)
Item, Found = TypeVar("Item"), TypeVar("Found")
_NOTHING = 5  # pytest's status where no test was chosen


def test_files(clone: Path, places: Iterable[str]) -> list[str]:
    """The files of tests in these folders (or themselves), from the clone's root."""
    found = set()
    for place in places:
        path = clone / place
        found |= set(path.rglob("test_*.py")) if path.is_dir() else {path}
    return sorted(str(file.relative_to(clone)) for file in found)


def in_clones(
    clones: Sequence[Path], work: Callable[[Path, Item], Found], items: Iterable[Item]
) -> Iterator[Found]:
    """What `work` returns for each item, in their order; one item at a time in each clone."""
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for clone in clones:
        free.put(clone)

    def one(item: Item) -> Found:
        clone = free.get()
        try:
            return work(clone, item)
        finally:
            free.put(clone)

    with ThreadPoolExecutor(len(clones)) as pool:
        yield from pool.map(one, items)


def covered(
    clones: Sequence[Path],
    tests: Iterable[str],
    environment: Callable[[Path], Mapping[str, str]],
    kept: Path,
) -> dict[str, Any]:
    """Seconds and executed lines of each file of tests, as {"seconds": s, "lines": {source: [line, ...]}}.

    Args:
      clones: of the repository; each runs one file of tests at a time.
      tests: files of tests.
      environment: of the processes in a clone.
      kept: a JSON file with what was found before, to which the rest is added.

    Raises:
      SystemExit: tests fail without any fault.
    """
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    missing = [test for test in tests if test not in found]
    rows = in_clones(
        clones, lambda clone, test: _measured(clone, test, environment(clone)), missing
    )
    for test, row in zip(missing, rows, strict=True):
        found[test] = row
        kept.write_text(json.dumps(found))
        print(f"{test}: {row['seconds']:.0f} s", flush=True)
    return found


def _measured(clone: Path, test: str, environment: Mapping[str, str]) -> dict[str, Any]:
    room = clone.with_name(f"{clone.name}.coverage")
    room.mkdir(exist_ok=True)
    data, told, started = room / "data", room / "coverage.json", time.monotonic()
    begin = [sys.executable, "-m", "coverage"]
    run = [*begin, "run", f"--data-file={data}", f"--source={clone / 'delrec_jax'}", *PYTEST, test]
    done = subprocess.run(run, cwd=clone, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - started
    if done.returncode == _NOTHING:
        return {"seconds": seconds, "lines": {}}
    if done.returncode:
        raise SystemExit(
            f"{test} fails without any fault:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
        )
    report = [*begin, "json", "-q", f"--data-file={data}", "-o", str(told)]
    subprocess.run(report, cwd=clone, env=environment, check=True, capture_output=True)
    files = json.loads(told.read_text())["files"]
    lines = {name: one["executed_lines"] for name, one in files.items() if one["executed_lines"]}
    return {"seconds": seconds, "lines": lines}


def chosen(found: Mapping[str, Any], clone: Path, file: str, line: int) -> list[str]:
    """The files of tests that execute the function around a line.

    Those that execute the line come first; of these, those that share a word of the file's name; and the quick ones of these.
    Around a line outside functions, which every import executes, those come first that execute most of the file.
    """
    around, words = _around(clone / file, line), _words(file)
    near = {}
    for test, one in found.items():
        executed = set(one["lines"].get(file, ()))
        if not executed.isdisjoint(around):
            imported = len(executed) if around == EVERYWHERE else 0
            named = not words.isdisjoint(_words(test))
            near[test] = (line not in executed, not named, -imported, one["seconds"])
    return sorted(near, key=near.__getitem__)


def _words(file: str) -> set[str]:
    return {word.removesuffix("s") for word in Path(file).stem.split("_")}


def _around(file: Path, line: int) -> range:
    """The lines of the body of the outermost function around a line; all lines, if it is in none."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            end = node.end_lineno or node.lineno
            if first <= line <= end:
                return range(node.body[0].lineno, end + 1)
    return EVERYWHERE
