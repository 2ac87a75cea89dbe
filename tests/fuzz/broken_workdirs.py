"""Damaged workdirs: one file of a finished run removed, emptied, cut, changed or exchanged, and a command that uses the run."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from command import printed
from damaged_bytes import BINARY_DAMAGES, PLACE_DAMAGES, TEXT_DAMAGES, replaced
from tiny_storefront import CONFIG, TINY
from verdicts import Case, choice, generator

from delrec_jax.data.corpora import load_corpus

LOOKED_AT = "only looked at, or kept to resume a training that is done: no command reads it"
REMADE = "the page and its tables are made again from the records"
ANOTHER_CONFIG = "settings that no stage read, or read only elsewhere, may be changed"

_LOGS = (".jsonl", ".html", ".md", ".svg", ".png", ".csv", ".tex", ".txt")


def commands(run: Path, output: Path, title: str = "") -> Mapping[str, tuple[str, ...]]:
    """Commands that read a finished run, by name."""
    asked = (f"--history={title}", "-k", "3")
    return {
        "recommend": ("recommend", f"--workdir={run}", *asked),
        "report": ("report", f"--workdir={run}"),
        "run": ("run", CONFIG, f"--workdir={run}", *TINY),
        "export": ("export", f"--workdir={run}", "--format=adapter", f"--output={output}"),
    }


def files_of(run: Path) -> list[str]:
    """All files of a run, checkpoints included."""
    return sorted(
        path.relative_to(run).as_posix()
        for path in run.rglob("*")
        if path.is_file() and ".lock" not in path.name
    )


def result(run: Path, output: Path, command: str, title: str) -> Any:
    """What the command prints, without where the run is."""
    shutil.rmtree(output, ignore_errors=True)
    text = printed(*commands(run, output, title)[command])
    return text.replace(str(run), "RUN").replace(str(output), "OUTPUT")


class Runs:
    """An undamaged run, and copies of it to damage."""

    def __init__(self, whole: Path, other: Path, folder: Path):
        self.whole, self.other, self.folder = whole, other, folder
        self.files = files_of(whole)
        self.title = load_corpus(whole / "data" / "corpus").catalogue.titles[0]
        self.expected: dict[str, Any] = {}

    def undamaged(self, command: str) -> Any:
        if command not in self.expected:
            copy = self.copy()
            self.expected[command] = result(copy, self.folder / "out", command, self.title)
        return self.expected[command]

    def copy(self) -> Path:
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        return Path(shutil.copytree(self.whole, self.folder / "run"))


def damaged_workdir(seed: int, number: int, runs: Runs, *, command: str = "") -> Case:
    """One file of a run, damaged, and a command on the run."""
    rng = generator(seed, "workdirs", number)
    name = choice(rng, _weighted(runs.files))
    command = command or choice(
        rng, ("recommend",) * 4 + ("report",) * 2 + ("export",) * 2 + ("run",)
    )
    expected = runs.undamaged(command)
    run = runs.copy()
    what = _damage(run / name, runs.other / name, rng)
    stage = name.partition("/")[0]
    return Case(
        label=f"{name}: {what}; {command}",
        attempt=lambda: result(run, runs.folder / "out", command, runs.title),
        names=[str(run / name), str(run / stage), str(run)],
        same=lambda found: found == expected,
        rule=rule(name, command),
    )


def rule(name: str, command: str) -> str:
    """Why a damaged file may change what a command says."""
    if "checkpoints" in name or name.endswith(_LOGS):
        return LOOKED_AT
    return ""


def _weighted(names: list[str]) -> list[str]:
    """Fewer of the files of checkpoints, which are many."""
    few = [name for name in names if "checkpoints/" in name][::20]
    return [name for name in names if "checkpoints/" not in name] + few


def _damage(path: Path, twin: Path, rng: np.random.Generator) -> str:
    kind = choice(rng, ("bytes",) * 5 + ("text",) * 2 + ("place",) * 2 + ("exchanged",))
    if kind == "place":
        damage: Callable[..., Any] = choice(rng, PLACE_DAMAGES)
        damage(path)
        return damage.__name__
    if kind == "exchanged" and twin.is_file():
        replaced(path, twin)
        return "exchanged with that of another run"
    damage = choice(rng, BINARY_DAMAGES if kind == "bytes" else list(TEXT_DAMAGES))
    path.write_bytes(damage(path.read_bytes(), rng))
    return damage.__name__
