"""The table of paired comparisons of a summary: differences, intervals, effect sizes, tests."""

from collections.abc import Mapping
from typing import Any

from delrec_jax.analysis.blocks import NOTHING, Block, Cell, Line, block_title, interval_text
from delrec_jax.analysis.comparison_blocks import p_text
from delrec_jax.errors import UserError
from delrec_jax.results import names
from delrec_jax.results.notes import (
    EFFECTS_NOTE,
    OVER_SEEDS,
    seeds_interval_note,
    seeds_interval_text,
)
from delrec_jax.results.selecting import Options, Summary, metrics_of, named, wanted, where

_FURTHER = ("low_seeds", "d_z")  # keys that older summaries lack


def comparisons_block(
    found: Mapping[str, Summary], options: Options, *, place: str = "", more_note: str = ""
) -> Block:
    """Paired comparisons of one name.

    Intervals over seeds and effect sizes have columns if any of the rows has them: summaries of older versions do not.

    Args:
      found: the summary by its name.
      options: `protocol`, `group`, `metrics`, `systems`, `references` (patterns).
      place: what the note calls the family of tests; `results/NAME` by default.
      more_note: what else its reader must know.

    Raises:
      UserError: no row is left.
    """
    ((name, summary),) = found.items()
    metrics = metrics_of(options, "metrics", ("NDCG@10",))
    rows = [
        row
        for row in summary["comparisons"]
        if all(row[key] == value for key, value in wanted(options).items())
        and row["metric"] in metrics
        and named(row["system"], row["teacher"], options.get("systems"))
        and named(row["reference"], row["reference_teacher"], options.get("references"))
    ]
    if not rows:
        raise UserError(
            f"results/{name}: no comparison for {dict(options)}; give collect.py --compare=A,B"
        )
    tested = len(summary["comparisons"])
    with_seeds, with_effects = (any(key in row for row in rows) for key in _FURTHER)
    counts = sorted({len(row["seeds"]) for row in rows if "low_seeds" in row})
    note = (
        f"Paired over {rows[0]['users']} users, whose values are first averaged over seeds: difference with its 95 % "
        f"bootstrap interval, by seed, and p of the sign-flip test, plain and by Holm over the {tested} tests of "
        f"{place or f'`results/{name}`'}."
    )
    note += f" {seeds_interval_note(counts)}" if with_seeds else ""
    note += f" {EFFECTS_NOTE}" if with_effects else ""
    return Block(
        title=block_title(summary["corpus"], split=summary["split"], protocol=where(rows[0])),
        note=f"{note} {more_note}".strip(),
        columns=(
            *("Comparison", "Metric", "Difference [95 %]"),
            *((OVER_SEEDS,) if with_seeds else ()),
            "By seed",
            *(("%", "d_z") if with_effects else ()),
            *("p", "p (Holm)"),
        ),
        lines=tuple(_line(row, with_seeds, with_effects) for row in rows),
    )


def _line(row: Mapping[str, Any], with_seeds: bool, with_effects: bool) -> Line:
    ours = names.title(row["system"], row["teacher"])
    theirs = names.title(row["reference"], row["reference_teacher"])
    ends = {"ci_low": row["low"], "ci_high": row["high"]}
    cells = [
        Cell(row["metric"]),
        Cell(f"{row['difference']:+.4f}", interval_text(ends, signed=True, digits=4)),
    ]
    if with_seeds:
        cells.append(Cell(seeds_interval_text(row, signed=True)))
    cells.append(Cell(", ".join(f"{one:+.4f}" for one in row["by_seed"])))
    if with_effects:
        cells += [_number(row.get("percent"), "+.1f"), _number(row.get("d_z"), "+.3f")]
    cells += [Cell(p_text(row["p"])), Cell(p_text(row["p_holm"]))]
    return Line(name="", label=f"{ours} vs {theirs}", cells=tuple(cells))


def _number(value: float | None, form: str) -> Cell:
    return Cell(NOTHING if value is None else f"{value:{form}}")
