"""Where a result comes from: commands, commit, machine, versions, date, and the hashes of the per-user ranks.

What ran is read from the journal that `benchmarks/evidence/run.py` keeps beside the workdirs (`journal.jsonl`); for a workdir
that it does not know, the commit of the working tree is given, marked as no more than that.
"""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import delrec_jax
from delrec_jax.errors import UserError
from delrec_jax.files import file_hash
from delrec_jax.results.sources import Source

ROOT = Path(__file__).resolve().parents[2]
"""The repository, if this package is that of a checkout; the folder it was installed in otherwise."""

RESULTS = ROOT / "results"
"""Where a checkout has its published aggregates."""

JOURNAL = "journal.jsonl"

_CODE = ("delrec_jax", "configs")  # what a result depends on
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "polars", "scipy")
_ABSOLUTE = re.compile(r"(?:^|[\s='\"(])(/[\w.]+/[\w./-]+)")


def now() -> str:
    """The time in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def commit(root: Path = ROOT) -> dict[str, Any]:
    """The commit of the working tree, and whether its package or configs differ from it.

    Returns:
      `commit` (40 digits, or "unknown" if the package was installed and is no checkout) and `dirty`.
    """
    try:
        # An installed package may lie in the repository of something else: a virtual environment within it.
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return {"commit": "unknown", "dirty": False}
        found = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", *_CODE)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": False}
    return {"commit": found, "dirty": bool(changed)}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, cores, memory (GiB) and system of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """The versions of Python, of this package and of the libraries that decide a result."""
    own = {"python": platform.python_version(), "delrec_jax": delrec_jax.__version__}
    return own | {name: metadata.version(name) for name in _LIBRARIES}


def journal(workdir: Path) -> list[dict[str, Any]]:
    """What the journal in the folder of a workdir says of it, oldest first; empty if there is none.

    Raises:
      UserError: a line is not JSON.
    """
    path = workdir.resolve().parent / JOURNAL
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}); remove it") from error
    return [row for row in rows if row.get("workdir") == workdir.resolve().name]


def refuse_paths(text: str, where: str) -> str:
    """The text, if it names no file of this machine.

    Raises:
      UserError: it has an absolute path.
    """
    if found := _ABSOLUTE.search(text):
        raise UserError(
            f"{where} has the path {found[1]!r}: results are published, so write DATA/ and RUNS/ for folders of this machine"
        )
    return text


def described(source: Source) -> dict[str, Any]:
    """One source: its workdir's name, the hash of its per-user ranks, and what the journal says of its runs."""
    rows = journal(source.workdir)
    runs = [
        {name: row[name] for name in ("command", "commit", "dirty", "start", "seconds", "rc")}
        for row in rows
    ]
    return {
        "workdir": source.workdir.resolve().name,
        "label": source.label,
        "file": f"{source.path.parent.name}/{source.path.name}",
        "sha256": file_hash(source.path),
        "runs": runs,
    }


def provenance(
    found: Sequence[Source], commands: Sequence[str], machine_name: str = ""
) -> dict[str, Any]:
    """Everything that belongs beside a result.

    Args:
      found: the files of rank records.
      commands: what made them; if empty, the commands of the journal.
      machine_name: the machine that made them, if it is not this one.

    Raises:
      UserError: a command names a path of this machine, or neither `commands` nor the journal says how a workdir was made.
    """
    told = [described(source) for source in found]
    unknown = [one["workdir"] for one in told if not one["runs"]]
    if unknown and not commands:
        raise UserError(
            f'{", ".join(unknown)}: no {JOURNAL} beside the workdir says how it was made; give --command="delrec ..."'
        )
    given = list(commands) or [row["command"] for one in told for row in one["runs"]]
    for one in given:
        refuse_paths(one, f"--command={one}")
    states = [(row["commit"], row["dirty"]) for one in told for row in one["runs"]]
    if unknown:
        states.append(tuple(commit().values()))
    return origin(given, states, told, unknown=unknown, machine_name=machine_name)


def origin(
    commands: Iterable[str],
    states: Iterable[tuple[str, bool]],
    told: list[dict[str, Any]],
    *,
    unknown: Sequence[str] = (),
    machine_name: str = "",
) -> dict[str, Any]:
    """The origin of a result, in the form in which summaries hold it.

    Args:
      commands: as they are published; repeated ones count once.
      states: commit of each run, and whether the working tree differed from it.
      told: the files of rank records (`described`).
      unknown: workdirs of which only the commit of the collection is known.
      machine_name: the machine, if it is not this one.
    """
    return {
        "date": now(),
        "commands": list(dict.fromkeys(commands)),
        "commits": [{"commit": name, "dirty": dirty} for name, dirty in dict.fromkeys(states)],
        "commit_of_collection_for": list(unknown),
        "machine": {"name": machine_name} if machine_name else machine(),
        "versions": versions(),
        "sources": told,
    }
