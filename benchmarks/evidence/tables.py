"""Fills the tables of the docs from the files in `results/`; `make results` runs this.

    python benchmarks/evidence/tables.py [--check] [PAGE ...]

A page (by default README.md and all of docs/) has blocks of the form

    <!-- table: NAME[,NAME] [KIND] [KEY=VALUE ...] -->
    <!-- end -->

and what stands between the two lines is replaced. Kinds, each with its keys:

    systems (the default)  protocol=full group=all metrics=HR@1,NDCG@10 interval=NDCG@10 systems=ease,hybrid*,teacher@sasrec
    comparisons            protocol=full group=all metrics=NDCG@10 systems=... references=...
    intervals              over users, and over users and seeds: protocol=full group=all metric=NDCG@10 systems=...
    side                   several names as columns: protocol=full group=all metric=NDCG@10 systems=...
    origin                 commands, commit, machine, date, hashes
    measured               a measurement with its origin, from results/measured/NAME.json (delrec_jax/results/measured.py)
    cost, lists            of a study: what systems cost, what they recommend: arms=full,no_* (those that arms share always)
    ways                   P2Rec's ways by validation, from results/NAME/ways.json (augmentations.py); several names as columns

`--check` changes nothing and exits with 1 if a page is not what this script would write.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study_tables import costs_table, lists_table
from ways import ways_table

from delrec_jax.errors import UserError
from delrec_jax.results import pages
from delrec_jax.results.pages import Kind, refresh
from delrec_jax.results.provenance import RESULTS, ROOT

KINDS = {
    **pages.KINDS,
    "cost": Kind(costs_table, ("arms",)),
    "lists": Kind(lists_table, ("arms",)),
    "ways": Kind(ways_table, file="{name}/ways.json", several=True),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the tables, or checks them; a mistake in a page ends with one line and status 2."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    options.add_argument("--check", action="store_true", help="change nothing; 1 if out of date")
    options.add_argument("--results", type=Path, default=RESULTS, help="default: the repository's")
    values = options.parse_args(argv)
    pages = values.pages or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    try:
        stale = [
            page
            for page in pages
            if refresh(page, values.results, write=not values.check, kinds=KINDS)
        ]
    except UserError as error:
        print(f"tables: {error}", file=sys.stderr)
        sys.exit(error.status)
    for page in stale:
        print(f"{page}: {'out of date' if values.check else 'written'}")
    if stale and values.check:
        print("run `make results`")
        sys.exit(1)


if __name__ == "__main__":
    main()
