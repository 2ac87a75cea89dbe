"""The table of paired tests, of one teacher or of several, on all users or on parts of them."""

from collections.abc import Sequence

from delrec_jax.analysis.blocks import Block, Cell, Line, Row, interval_text
from delrec_jax.analysis.labels import base_label, selection_text

_NOTE = "Difference of means over the same users with its 95 % bootstrap interval; "
_ONE_FAMILY = "sign-flip test, p-values corrected by Holm within a family (protocol and metric). "
_POOLED_FAMILY = (
    "sign-flip test, p-values corrected by Holm over all rows of one metric (every teacher, "
    "pair and part of the users). "
)
_TIE = "A tie is a difference that is not significant at 5 %."
_PARTS = (
    " @head: the target is among the most popular fifth of the items; @tail: another item seen "
    "in training; @cold: an item never seen in training."
)


def comparison_block(comparisons: Sequence[Row]) -> Block:
    """The significance table.

    Args:
      comparisons: dicts of `evaluation.significance.Comparison` (`dataclasses.asdict`).
    """
    several_teachers = len({row["teacher"] for row in comparisons if row["teacher"]}) > 1
    has_parts = any("@" in row["protocol"] for row in comparisons)
    family = _POOLED_FAMILY if several_teachers or has_parts else _ONE_FAMILY
    return Block(
        title="Paired tests",
        note=_NOTE + _seeds_note(comparisons) + family + _TIE + (_PARTS if has_parts else ""),
        columns=("Comparison", "Protocol", "Metric", "Difference [95 %]", "p (Holm)", "Reading"),
        lines=tuple(_line(row, teachers=several_teachers) for row in comparisons),
    )


def verdict(row: Row) -> str:
    """How a comparison reads: "better", "worse", or "tie" if it is not significant at 5 %."""
    if row["p_adjusted"] >= 0.05:
        return "tie"
    return "better" if row["difference"] > 0 else "worse"


def _line(row: Row, *, teachers: bool) -> Line:
    digits = 4 if row["seeds"] > 1 else 3  # as in the tables of means over seeds
    label = (
        f"{_label(row['system'], row['step'])} vs {_label(row['reference'], row['reference_step'])}"
    )
    return Line(
        name="",
        label=f"{row['teacher']}: {label}" if teachers and row["teacher"] else label,
        cells=(
            Cell(row["protocol"]),
            Cell(row["metric"]),
            Cell(
                f"{row['difference']:+.{digits}f}", interval_text(row, signed=True, digits=digits)
            ),
            Cell(p_text(row["p_adjusted"])),
            Cell(verdict(row)),
        ),
    )


def _seeds_note(comparisons: Sequence[Row]) -> str:
    seeds = sorted({row["seeds"] for row in comparisons})
    if seeds[-1] == 1:
        return ""
    return f"each user's value is first averaged over {'/'.join(map(str, seeds))} seeds; "


def _label(system: str, step: int) -> str:
    return base_label(system) + selection_text({"system": system, "step": step})


def p_text(p: float) -> str:
    """A p-value as tables show it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
