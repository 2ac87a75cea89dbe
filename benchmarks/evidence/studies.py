"""The result of a study in `results/study_NAME/summary.json`, from which `tables.py` writes all tables.

    python benchmarks/evidence/studies.py NAME STUDY --command="delrec study --config=... --workdir=RUNS/NAME"

STUDY is the workdir of `delrec study`, which wrote its aggregates into STUDY/summary.json. This adds where they come from: the
command, the commits and the time by the study's journal, the machine, the date, and the hash of each run's rank records.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delrec_jax.errors import UserError
from delrec_jax.files import write_text
from delrec_jax.results.provenance import ROOT, described, origin, refuse_paths
from delrec_jax.results.sources import Source
from delrec_jax.results.summary import as_text, refuse_user_rows
from delrec_jax.studies import journal


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags; a mistake of the user ends with one line and status 2."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("name", help="folder in results/ is study_NAME")
    options.add_argument("study", type=Path, metavar="STUDY")
    options.add_argument("--command", required=True, help="as it is published")
    options.add_argument("--results", type=Path, default=ROOT / "results")
    values = options.parse_args(argv)
    try:
        print(publish(values.results / f"study_{values.name}", values.study, values.command))
    except UserError as error:
        print(f"studies: {error}", file=sys.stderr)
        sys.exit(error.status)


def publish(folder: Path, study: Path, command: str) -> Path:
    """Writes `summary.json` with its provenance; returns its path.

    Args:
        folder: `results/study_NAME`.
        study: the study's workdir.
        command: that ran it, with RUNS/ and DATA/ for folders of this machine.

    Raises:
        UserError: the study has no summary, some of its runs are not finished, or the command names a path of this machine.
    """
    path = study / "summary.json"
    if not path.is_file():
        raise UserError(f"{path}: no summary; run `delrec study` there first")
    summary = json.loads(path.read_text(encoding="utf-8"))
    if left := summary["study"]["unfinished"]:
        raise UserError(f"{study}: {', '.join(left)} not finished; the same `delrec study` goes on")
    costs = study / "costs.json"
    found = {
        **summary,
        "costs": json.loads(costs.read_text(encoding="utf-8")) if costs.is_file() else [],
        "provenance": provenance(study, refuse_paths(command, f"--command={command}")),
    }
    refuse_user_rows(found)
    write_text(folder / "summary.json", as_text(found))
    return folder / "summary.json"


def provenance(study: Path, command: str) -> dict[str, Any]:
    """Where the result of a study comes from."""
    lines = journal.read(study)
    records = sorted(study.glob("runs/*/records/records.parquet")) or sorted(
        study.glob("runs/*/baseline/records.parquet")
    )
    sources = [described(Source(one.parents[1], "", one)) for one in records]
    states = [(line["commit"], line["dirty"]) for line in lines]
    return {
        **origin([command], states, sources),
        "stages": len(lines),
        "seconds": round(sum(line["seconds"] for line in lines)),
    }


if __name__ == "__main__":
    main()
