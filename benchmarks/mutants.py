"""Would the tests notice? Small faults put into the code, one at a time, each tried by its tests in a fresh process.

    .venv/bin/pip install cosmic-ray coverage
    .venv/bin/python benchmarks/mutants.py --runs=FOLDER [--count=400] [--seed=0] [--jobs=2] [--minutes=M] [--again] [--list]

The faults are cosmic-ray's (another operator, another number, a negated condition, a loop that does nothing, a removed
decorator and so on) at places drawn by the seed from `PARTS`: evaluation, splits, candidates, prompts, language models and
losses. One fault is drawn for each place. Left out: type annotations, which nothing runs; shifts, bit operators, powers and
remainders in place of arithmetic, which almost any test would notice; another operator for the bit operators of sets and masks;
identity in place of equality, or the other way round, which is the same; and the order of words, since a word that is one of
two is also above or below the other.

First each file of tests runs once by itself, which tells which lines it executes. A fault is then shown to files that execute
the function around it, until one fails, or takes ten times longer than without it: then the fault is killed. Those that execute
its line come first, then those whose names have a word of the file's, then the quick ones. After ten files, or two minutes, it
has survived. With `--again`, those that have survived are shown to four times as many.

FOLDER keeps a clone per job of the commit at hand and a line per fault, so that the same command goes on where it was
stopped; `--minutes` stops it. Writes `benchmarks/results/mutants.json` with the faults that survived: each needs a look. Some
cannot be noticed, since the result is the same.
"""

import argparse
import ast
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import harness
from cosmic_ray.commands import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import use_db
from covering import PYTEST, chosen, covered, in_clones, test_files

ROOT = Path(__file__).parents[1]
PARTS = (
    "delrec_jax/evaluation/*.py",
    "delrec_jax/data/split*.py",
    "delrec_jax/data/candidates.py",
    "delrec_jax/data/prompts.py",
    "delrec_jax/data/templates.py",
    "delrec_jax/language/*.py",
    "delrec_jax/teachers/losses.py",
    "delrec_jax/pretraining/bag_loss.py",
    *(f"delrec_jax/delrec/{name}.py" for name in ("anchor", "distilling_task", "next_item")),
    *("delrec_jax/delrec/task_weighting.py", "delrec_jax/p2rec/parsing_task.py"),
)
TESTS = (
    *("tests/data", "tests/evaluation", "tests/results", "tests/language", "tests/teachers"),
    *("tests/pretraining", "tests/delrec", "tests/hub", "tests/p2rec/test_parsing_loss.py"),
    *("tests/p2rec/test_preference_loss.py", "tests/stages/test_anchor.py"),
    *(f"tests/stages/test_{name}_run.py" for name in ("bert", "encoder", "tiny")),
    *("tests/stages/test_verbalizers.py", "tests/planning/test_plan.py"),
)
"""Those that are asked; of all others, most run whole pipelines."""
UNSEEN = {"tests/multi_device/test_meshes.py": ("delrec_jax/language/token_table.py",)}
"""Files of tests that start processes, whose lines coverage does not see, and what these execute."""
OBVIOUS = ("RShift", "LShift", "BitOr", "BitAnd", "BitXor", "Pow", "FloorDiv", "Mod")
BITS = ("BitOr", "BitAnd", "BitXor")
SAME = ("Is", "IsNot")  # mostly no fault: equal short texts and numbers are one object
ORDERS = ("Lt", "LtE", "Gt", "GtE")
FILES = 10  # of tests that a fault is shown to, at most
SECONDS = 120.0  # after which it is shown to no further one
SLOWER, SPARE = 10.0, 120.0  # times what tests take without a fault, and seconds, on a busy machine


class Fault(NamedTuple):
    """A mutation: file from the root, line and column, cosmic-ray's operator, and which occurrence of it in the file."""

    file: str
    place: tuple[int, int]
    operator: str
    occurrence: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder of the clone and the log")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--again", action="store_true", help="survivors are shown to more")
    parser.add_argument("--list", action="store_true", help="only print the faults")
    options = parser.parse_args()
    options.runs = options.runs.resolve()
    clones = [cloned(options.runs / f"clone-{number}") for number in range(options.jobs)]
    faults = drawn(clones[0], options.count, options.seed)
    if options.list:
        print("\n".join(map(str, faults)))
        return
    tests = test_files(clones[0], TESTS)
    found = covered(clones, tests, _environment, options.runs / "covered.json")
    for test, files in UNSEEN.items():
        lines = {
            file: list(range(1, 1 + len((clones[0] / file).open().readlines()))) for file in files
        }
        found[test] = {"seconds": 100.0, "lines": lines}
    log = options.runs / "faults.jsonl"
    done = {_identity(row): row for row in _rows(log)}
    outcomes = {key: row["outcome"] for key, row in done.items()}
    if options.again:
        left = [one for one in faults if outcomes.get(_identity(one._asdict())) == "survived"]
    else:
        left = [one for one in faults if _identity(one._asdict()) not in outcomes]
    ends = time.monotonic() + 60 * options.minutes
    with log.open("a") as file:
        for row in _all_tried(clones, left, found, ends, more=options.again):
            done[_identity(row)] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{len(done)}: {row['outcome']} {row['file']}:{row['place'][0]}", flush=True)
    _save(
        faults,
        [done[key] for fault in faults if (key := _identity(fault._asdict())) in done],
        options,
    )


def _all_tried(
    clones: list[Path], faults: Iterable[Fault], found: dict[str, Any], ends: float, *, more: bool
) -> Iterator[dict[str, Any]]:
    """The rows of these faults in their order, one fault at a time in each clone; none is begun after the end.

    With `more`, a fault is shown to four times as many files of tests.
    """

    def one(clone: Path, fault: Fault) -> dict[str, Any] | None:
        if time.monotonic() > ends:
            return None
        return {**fault._asdict(), **tried(clone, fault, found, more=more)}

    return (row for row in in_clones(clones, one, faults) if row is not None)


def cloned(clone: Path) -> Path:
    """A clone of the commit at hand, in which files may be damaged; the one that is there, if it is of this commit."""
    if not clone.exists():
        clone.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    commits = {_commit(place) for place in (ROOT, clone)}
    if len(commits) > 1:
        sys.exit(f"{clone} has another commit than {ROOT}: name another folder, or remove it")
    subprocess.run(["git", "-C", str(clone), "checkout", "--quiet", "."], check=True)
    return clone


def drawn(clone: Path, count: int, seed: int) -> list[Fault]:
    """As many places as asked for, drawn without replacement, with one fault each."""
    by_place: dict[tuple[str, tuple[int, int]], list[Fault]] = {}
    for fault in _all(clone):
        by_place.setdefault((fault.file, fault.place), []).append(fault)
    rng = random.Random(seed)
    places = rng.sample(sorted(by_place), min(count, len(by_place)))
    return [rng.choice(sorted(by_place[place])) for place in places]


def _all(clone: Path) -> Iterator[Fault]:
    files = sorted({file for pattern in PARTS for file in clone.glob(pattern)})
    annotations = {file: _spans(_annotations(file)) for file in files}
    words = {file: _spans(_compared_words(file)) for file in files}
    with use_db(str(clone.parent / "faults.sqlite")) as database:
        init(files, database, {})
        for item in database.work_items:
            (found,) = item.mutations
            file, place = Path(found.module_path), tuple(found.start_pos)
            if _is_no_fault(found.operator_name, in_words=_within(place, words[file])):
                continue
            if not _within(place, annotations[file]):
                name = str(file.relative_to(clone))
                yield Fault(name, place, found.operator_name, found.occurrence)


def _is_no_fault(operator: str, *, in_words: bool) -> bool:
    """Whether a kind of fault is left out (the docstring of this file has the reasons)."""
    original, replaced = operator.split("_")[-2:] if "_" in operator else ("", "")
    if "BinaryOperator" in operator:
        return replaced in OBVIOUS or original in BITS
    if "ComparisonOperator" in operator:
        same = replaced in SAME or (original, replaced) in (("Is", "Eq"), ("IsNot", "NotEq"))
        return same or (in_words and replaced in ORDERS)
    return False


def _annotations(file: Path) -> Iterator[ast.expr]:
    """The type annotations of this file."""
    for node in ast.walk(ast.parse(file.read_text())):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if isinstance(part, ast.expr):
                yield part


def _compared_words(file: Path) -> Iterator[ast.expr]:
    """Comparisons with a text."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in sides):
                yield node


def _spans(parts: Iterable[ast.expr]) -> list[tuple[Any, Any]]:
    """Where these parts of a file begin and end, as (line, column)."""
    return [((one.lineno, one.col_offset), (one.end_lineno, one.end_col_offset)) for one in parts]


def _within(place: Any, spans: Iterable[tuple[Any, Any]]) -> bool:
    return any(start <= place < end for start, end in spans)


def tried(clone: Path, fault: Fault, found: dict[str, Any], *, more: bool) -> dict[str, Any]:
    """Puts the fault into the clone and runs its tests; how it ended, after how many files and seconds, what the fault was."""
    times = 4 if more else 1
    tests = chosen(found, clone, fault.file, fault.place[0])[: times * FILES]
    started, outcome, asked = time.monotonic(), "survived", 0
    with use_mutation(clone / fault.file, get_operator(fault.operator)(), fault.occurrence):
        changed = _git(clone, "diff", "--unified=0").splitlines()
        for test in tests:
            outcome = _tested(clone, test, SPARE + SLOWER * found[test]["seconds"])
            asked += 1
            if outcome != "survived" or time.monotonic() - started > times * SECONDS:
                break
    lines = [line for line in changed if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    seconds = round(time.monotonic() - started)
    return {"outcome": outcome, "files_of_tests": asked, "seconds": seconds, "change": lines}


def _tested(clone: Path, test: str, limit: float) -> str:
    command = [sys.executable, *PYTEST, test]
    try:
        status = subprocess.run(
            command, cwd=clone, env=_environment(clone), capture_output=True, timeout=limit
        ).returncode
    except subprocess.TimeoutExpired:
        return "timeout"
    return "survived" if status == 0 else "killed"


def _environment(clone: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(clone),
        "PYTHONDONTWRITEBYTECODE": "1",
        # Programs are kept: only one that a fault changes is compiled anew. Not between jobs: a file may be half-written.
        **harness.cached(clone.with_name(f"{clone.name}.compiled")),
    }


def _save(faults: list[Fault], rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    survived = [row for row in rows if row["outcome"] == "survived"]
    killed = len(rows) - len(survived)
    harness.save(
        "mutants",
        {"count": options.count, "seed": options.seed, "parts": PARTS, "tests": TESTS},
        {"tried": len(rows), "killed": killed, "drawn": len(faults), "survived": survived},
    )
    print(f"mutants: {killed} of {len(rows)} killed ({len(faults)} drawn)")


def _rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["file"], *row["place"], row["operator"], row["occurrence"])


def _commit(place: Path) -> str:
    return _git(place, "rev-parse", "HEAD").strip()


def _git(place: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(place), *words], check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    main()
