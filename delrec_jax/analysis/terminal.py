"""What a report shows on the terminal: the table to read first, and where all the others are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from delrec_jax.analysis.blocks import Block, Row, print_blocks
from delrec_jax.analysis.labels import system_label

_COMPARED = ("teacher", "delrec")
_METHODS = ("delrec", "teacher_augmented")


def print_report(
    tables: Sequence[Block], more: Sequence[Block], page: Path, note: str = ""
) -> None:
    """Prints the main table and a note on it, short tables that belong to it, and the path of the page.

    Args:
      tables: every table of the results, in the page's order, at least one.
      more: tables of another kind that are short enough to be shown too.
      page: the report; `tables.md` next to it has all of `tables`.
      note: what a reader of the main table must know.
    """
    main = main_table(tables)
    print_blocks([main])
    if note:
        print(f"{note}\n")
    print_blocks(more)
    if len(tables) > 1:
        print(f"{len(tables) - 1} more tables: {page.with_name('tables.md')}")
    print(f"report: {page}")


def main_table(tables: Sequence[Block]) -> Block:
    """Returns the first table with the method itself: a model that reads candidates is not ranked in the whole catalogue."""
    own = (table for table in tables if any(line.name in _METHODS for line in table.lines))
    return next(own, tables[0])


def seen_and_unseen(rows: Sequence[Row], protocol: str) -> str:
    """Says where the teacher leads and where DELRec does: HR@1 on targets seen in training, and on those never seen.

    Args:
      rows: rows of `metrics.json` of one run.
      protocol: the protocol of the main table.

    Returns:
      One sentence; empty if no target was unseen.
    """
    parts = []
    for users, what in (("warm", "seen in training"), ("cold", "never seen in training")):
        found = _hits(rows, f"{protocol}@{users}")
        if found.keys() != set(_COMPARED):
            return ""
        values = ", ".join(
            f"{system_label(system, '', teachers=False)} {found[system]['value']:.3f}"
            for system in _COMPARED
        )
        parts.append(f"{what} ({found['delrec']['users']} users): {values}")
    return "HR@1 by target, " + "; ".join(parts) + "."


def _hits(rows: Sequence[Row], protocol: str) -> Mapping[str, Row]:
    """The rows of HR@1 of the compared systems."""
    return {
        row["system"]: row
        for row in rows
        if (row["protocol"], row["metric"]) == (protocol, "HR@1") and row["system"] in _COMPARED
    }
