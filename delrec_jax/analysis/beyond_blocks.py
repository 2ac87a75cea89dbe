"""The table of what recommended lists say beyond accuracy: coverage, popularity, novelty, agreement with the teacher."""

from collections.abc import Mapping, Sequence

import numpy as np

from delrec_jax.analysis.blocks import NOTHING, Block, Cell, Line, Row
from delrec_jax.analysis.labels import system_label
from delrec_jax.evaluation.systems import system_order, untrained

_TARGETS = "targets"  # the row of what the users took, in place of a system
_COLUMNS = {
    "coverage": "Coverage@10",
    "concentration": "Gini",
    "popularity": "Popularity",
    "novelty": "Novelty (bits)",
    "jaccard": "Jaccard with teacher",
    "same_first": "Same first item",
}
_NOTE = (
    "The 10 best unseen items of {users} test users. Coverage: share of the catalogue in any list; Gini: how unequally items "
    "are shown (0: all equally often); popularity: mean percentile of the items by their training interactions (1: the most "
    "popular); novelty: mean of -log2 of their share of these; Jaccard and same first item: agreement with the lists of the "
    "teacher of the same run.{seeds} Systems that rank stated candidates only have no lists."
)


def beyond_blocks(rows: Sequence[Row]) -> list[Block]:
    """The table of all systems, means over seeds where there are several; no table without rows.

    Args:
      rows: those of `evaluation.beyond_accuracy.measure_rows`.
    """
    if not rows:
        return []
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        teacher = "" if is_shared(row["system"]) else row["teacher"]
        found.setdefault((row["system"], teacher), []).append(row)
    several = len({teacher for _, teacher in found if teacher}) > 1
    lines = [
        Line(
            name="" if system == _TARGETS else system,
            label="What the users took"
            if system == _TARGETS
            else system_label(system, teacher, teachers=several),
            cells=tuple(
                _cell(found[system, teacher], name, shared=is_shared(system)) for name in _COLUMNS
            ),
        )
        for system, teacher in sorted(found, key=_order)
    ]
    spread = any(cell.interval for line in lines for cell in line.cells)
    seeds = " Means over seeds, ± the sample standard deviation over them." if spread else ""
    users = "/".join(str(count) for count in sorted({row["users"] for row in rows}))
    return [
        Block(
            title="Beyond accuracy: the recommended lists",
            note=_NOTE.format(users=users, seeds=seeds),
            columns=("System", *_COLUMNS.values()),
            lines=tuple(lines),
        )
    ]


def _order(key: tuple[str, str]) -> tuple[int, str, tuple[int, ...]]:
    """The systems by teacher, then what the users took."""
    system, teacher = key
    if system == _TARGETS:
        return 2, "", ()
    return int(system == "oracle"), teacher, system_order(system)


def is_shared(system: str) -> bool:
    """Whether a system's row is the same for every teacher and seed."""
    return system == _TARGETS or untrained(system)


def _cell(rows: Sequence[Mapping[str, float | None]], name: str, *, shared: bool) -> Cell:
    """The mean of a measure over the rows of one system, and its spread, which would look measured if nothing can vary."""
    values = [value for row in rows if (value := row[name]) is not None]
    if not values:
        return Cell(NOTHING)
    measured = len(values) > 1 and not (shared and np.ptp(values) < 1e-12)
    spread = f"± {np.std(values, ddof=1):.3f}" if measured else ""
    return Cell(f"{np.mean(values):.3f}", spread)
