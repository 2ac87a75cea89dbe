"""Aggregates of finished workdirs in `results/NAME/summary.json`, from which `tables.py` writes all tables.

    python benchmarks/evidence/collect.py NAME WORKDIR [WORKDIR ...] [--compare=A,B ...] [--command="delrec ..."]

Several workdirs are several seeds or recommenders of one corpus under one split, each with the records of `delrec evaluate`
or `delrec baseline`. `LABEL=WORKDIR` names its systems `SYSTEM/LABEL`, so that two settings of one system stand side by side.
`--compare` tests pairs: `ease,teacher`, `*,teacher` (every system against it), `teacher@sasrec,teacher@gru4rec`, or
`hybrids` (each against the best of its parts by validation). Without `--command`, the commands are those of run.py's journal.

The summary holds aggregates alone: corpora allow nothing row by row. The per-user ranks stay in the workdirs, and the summary
has their hashes. With `--rows` the ranks of a generated storefront, and of no other corpus, are stored beside it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from delrec_jax.errors import UserError
from delrec_jax.results.provenance import RESULTS
from delrec_jax.results.summary import collect


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags; a mistake of the user ends with one line and status 2."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("name", help="folder in results/")
    options.add_argument("workdirs", nargs="+", metavar="WORKDIR")
    options.add_argument("--compare", action="append", default=[], metavar="A,B")
    options.add_argument("--command", action="append", default=[])
    options.add_argument("--protocols", default="full", help="of the pairs: full,full@tail")
    options.add_argument("--metrics", default="NDCG@10", help="of the pairs")
    options.add_argument("--machine", default="", help="where they ran, if not here")
    options.add_argument("--rows", action="store_true", help="per-user ranks of a storefront too")
    options.add_argument("--results", type=Path, default=RESULTS, help="default: the repository's")
    values = options.parse_args(argv)
    try:
        path = collect(
            values.results / values.name,
            values.workdirs,
            compare=values.compare,
            commands=values.command,
            protocols=values.protocols.split(","),
            metrics=values.metrics.split(","),
            machine=values.machine,
            rows=values.rows,
        )
    except UserError as error:
        print(f"collect: {error}", file=sys.stderr)
        sys.exit(error.status)
    print(path)


if __name__ == "__main__":
    main()
