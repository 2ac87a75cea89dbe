"""The rank records of finished workdirs, one cell per protocol, system, teacher and seed.

Cells of several workdirs lie side by side if they were measured on the same test users. What no seed and no teacher can change
(`names.untrained`) is kept once, if all workdirs agree on it for every user.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import METRICS, metrics_of_ranks
from delrec_jax.evaluation.records import (
    RECORD_SCHEMA,
    read_expected,
    read_records,
    wide_expected,
)
from delrec_jax.evaluation.systems import SYSTEMS
from delrec_jax.files import expanded, read_object
from delrec_jax.results import names
from delrec_jax.training.writers import say
from delrec_jax.workdir import kept_files
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.stored_settings import stored_experiment
from delrec_jax.workdir.workspace import Workspace

PER_USER = ("user", "target", "rank", "ties", "candidates", "cold", "head")
"""The columns of rank records that differ between users; all others belong to the run."""

_OF_RUN = tuple(name for name in RECORD_SCHEMA if name not in PER_USER)
_LABEL = re.compile(r"[\w.+-]+")  # patterns of systems give other signs a meaning
_FOLDERS = {"records": "evaluate", "baseline": "baseline"}  # folder -> the stage that writes it


class Key(NamedTuple):
    """What tells cells apart; an untrained system has no teacher ("") and no seed (None)."""

    protocol: str
    system: str
    teacher: str
    seed: int | None


@dataclass(frozen=True)
class SystemRecords:
    """One system under one protocol.

    Attributes:
      run: the columns of the records that are the same for all users.
      users: `PER_USER`, sorted by user.
      expected: an oracle's expected metrics [U, M]; None for systems that are measured by their ranks.
    """

    run: dict[str, Any]
    users: pl.DataFrame
    expected: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """Each user's metrics [U, M], in the order of `METRICS`."""
        if self.expected is not None:
            return self.expected
        found = metrics_of_ranks(self.users["rank"].to_numpy())
        return np.stack([found[name] for name in METRICS], axis=1)

    @property
    def records(self) -> pl.DataFrame:
        """The rank records of this cell."""
        constants = [
            pl.lit(value).cast(RECORD_SCHEMA[name]).alias(name) for name, value in self.run.items()
        ]
        return self.users.with_columns(constants).select(list(RECORD_SCHEMA))


@dataclass(frozen=True)
class Source:
    """One file of rank records.

    Attributes:
      workdir: where it lies.
      label: the workdir's, "" for none.
      path: the file.
    """

    workdir: Path
    label: str
    path: Path

    @property
    def hybrids(self) -> list[dict[str, Any]]:
        """The hybrids of this evaluation with the weights that validation chose; empty if the workdir states none."""
        path = self.path.with_name("hybrids.json")
        if not path.is_file():
            return []
        told = {"workdir": self.workdir.resolve().name}
        return [
            told | one | {"system": names.labeled(one["system"], self.label)}
            for one in read_json(path)
        ]


def sources(workdirs: Sequence[str]) -> list[Source]:
    """The records files of workdirs given as `WORKDIR` or `LABEL=WORKDIR`.

    Raises:
      UserError: a workdir has no finished evaluation, or a label has other signs than letters, digits and `.+-_`.
    """
    return [source for text in workdirs for source in sources_of(*_label_and_folder(text))]


def sources_of(label: str, folder: Path) -> list[Source]:
    """The records files of one workdir.

    Raises:
      UserError: it has no finished evaluation, files of it have changed since, or it is one of other settings.
    """
    files = [folder / name / "records.parquet" for name in _FOLDERS]
    there = [file for file in files if finished(file.parent) and file.is_file()]
    if not there:
        raise UserError(
            f"{folder}: neither {' nor '.join(f'{name}/' for name in _FOLDERS)} holds the records of a finished "
            "evaluation; run `delrec evaluate` or `delrec baseline` there, or leave the workdir out"
        )
    for file in there:
        kept_files.check(
            file.parent, _marker(file.parent).get("files", {}), stage=_FOLDERS[file.parent.name]
        )
    return [Source(folder, label, file) for file in _current(folder, there)]


def _current(folder: Path, there: Sequence[Path]) -> list[Path]:
    """Those of a workdir's records that belong to its settings and earlier results as they are now.

    Raises:
      UserError: none does, or those of `delrec evaluate` do not, which `delrec run` would make again.
    """
    marked = [file for file in there if "fingerprint" in _marker(file.parent)]
    if not marked:
        return [*there]
    ws = Workspace(folder, stored_experiment(folder), read_only=True)
    stale = [file for file in marked if not ws.finished(_FOLDERS[file.parent.name])]
    for file in stale:
        stage = _FOLDERS[file.parent.name]
        told = (
            f"{file.parent} was made with other settings or earlier results than {folder} has now"
        )
        if stage == "evaluate" or len(there) == 1:
            raise UserError(f"{told}: run `delrec {stage}` there again, or leave the workdir out")
        say(f"  note: {told}, and is left out: run `delrec {stage}` there again to have it")
    return [file for file in there if file not in stale]


def _label_and_folder(text: str) -> tuple[str, Path]:
    """`LABEL=WORKDIR` or `WORKDIR`, which may itself have an equals sign in its name."""
    label, given, path = text.partition("=")
    if not given or Path(text).exists():
        return "", expanded(text)
    if not _LABEL.fullmatch(label) or label in SYSTEMS:
        raise UserError(
            f"{text}: there is no such folder, and {label!r} is no label: use letters, digits and .+-_, and not the name of a "
            "system"
        )
    return label, expanded(path)


def finished(folder: Path) -> bool:
    """Whether the stage that writes to a folder has finished."""
    return bool(_marker(folder).get("finished"))


def _marker(folder: Path) -> dict[str, Any]:
    path = folder / kept_files.MARKER
    if not path.is_file():
        return {}
    return read_object(
        path, missing="", remedy=f"put back a copy of it, or delete {folder} and make it again"
    )


def gather(found: Sequence[Source]) -> dict[Key, SystemRecords]:
    """The cells of all sources.

    What both stages of one workdir ranked is read from `records/`.

    Raises:
      UserError: the sources mix corpora or splits, differ in their test users, or hold different ranks of one system.
    """
    cells: dict[Key, SystemRecords] = {}
    owner: dict[Key, Source] = {}
    for source in found:
        for cell in _cells_of(source):
            key = Key(*(cell.run[name] for name in Key._fields))
            before = cells.get(key)
            if before is not None and owner[key].workdir == source.workdir:
                continue
            if before is not None and not _same(before, cell):
                raise UserError(
                    f"{source.path}: '{key.system}' (protocol {key.protocol}, teacher '{key.teacher}', seed {key.seed}) has "
                    f"other ranks than in {owner[key].path}; give one of the two a label (LABEL={source.workdir}) or its "
                    "own name in results/"
                )
            cells[key], owner[key] = cell, source
    return _collapsed(_paired(cells, owner))


def _cells_of(source: Source) -> Iterator[SystemRecords]:
    table = read_records(source.path).sort("user")
    if table.is_empty():
        raise UserError(f"{source.path}: has no rows; evaluate the workdir again")
    expected = source.path.with_name("expected.parquet")
    wide = wide_expected(read_expected(expected)).sort("user") if expected.is_file() else None
    for values, rows in table.partition_by(_OF_RUN, as_dict=True).items():
        run = dict(zip(_OF_RUN, values, strict=True))
        oracle = None
        if run["system"] == "oracle":
            if wide is None:
                raise UserError(
                    f"{expected}: missing, but '{source.path}' has an oracle, whose result is its expectation; "
                    "run `delrec evaluate` again"
                )
            oracle = wide.filter(protocol=run["protocol"]).select(METRICS).to_numpy()
        run["system"] = names.labeled(run["system"], source.label)
        yield SystemRecords(run, rows.select(PER_USER), oracle)


def same_ranks(one: SystemRecords, other: SystemRecords) -> bool:
    """Whether two cells have the same ranks for the same users and targets."""
    columns = ["user", "target", "rank"]
    return one.users.select(columns).equals(other.users.select(columns))


def _same(one: SystemRecords, other: SystemRecords) -> bool:
    differing = {"teacher", "seed"} if names.untrained(one.run["system"]) else set()
    return same_ranks(one, other) and all(
        value == other.run[name] for name, value in one.run.items() if name not in differing
    )


def _paired(cells: dict[Key, SystemRecords], owner: dict[Key, Source]) -> dict[Key, SystemRecords]:
    """The cells, their users in the groups of the first one.

    Refuses sources of which the difference could not be paired, user by user. Sources with different labels, such as the arms
    of a study, may differ in what was trained on, and with it in which targets are cold or popular; those of one label may not.
    """
    first_key = next(iter(cells))
    first, of_label = cells[first_key], dict[str, Key]()
    for key, cell in cells.items():
        for name in ("corpus", "split"):
            if cell.run[name] != first.run[name]:
                raise UserError(
                    f"{owner[key].path}: {name} is '{cell.run[name]}', but '{first.run[name]}' in {owner[first_key].path}; "
                    "one name in results/ holds one corpus under one split"
                )
        _check_users(cells, key, first_key, ["user", "target"], owner)
        same = of_label.setdefault(owner[key].label, key)
        _check_users(cells, key, same, ["cold", "head"], owner)
    groups = first.users.select("cold", "head")
    return {
        key: replace(cell, users=cell.users.with_columns(groups)) for key, cell in cells.items()
    }


def _check_users(
    cells: dict[Key, SystemRecords],
    key: Key,
    other: Key,
    columns: list[str],
    owner: dict[Key, Source],
) -> None:
    if not cells[key].users.select(columns).equals(cells[other].users.select(columns)):
        raise UserError(
            f"{owner[key].path}: '{key.system}' has other test users, targets or training interactions than "
            f"{owner[other].path}; collect them under another name in results/"
        )


def _collapsed(cells: dict[Key, SystemRecords]) -> dict[Key, SystemRecords]:
    """Untrained systems without teacher and seed, where all their cells agree; others as they are."""
    copies: dict[tuple[str, str], list[Key]] = {}
    for key in cells:
        if names.untrained(key.system):
            copies.setdefault(key[:2], []).append(key)
    kept = dict(cells)
    for (protocol, system), keys in copies.items():
        first = cells[keys[0]]
        if all(_same(first, cells[key]) for key in keys):
            for key in keys:
                del kept[key]
            run = first.run | {"teacher": ""}
            kept[Key(protocol, system, "", None)] = replace(first, run=run)
    ordered = sorted(kept, key=lambda key: (key[0], names.order(key[1]), key[2], key[3] or 0))
    return {key: kept[key] for key in ordered}
