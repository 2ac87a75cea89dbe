"""The figure of what was found: systems by NDCG@10 on a generated shop and on a real one, from `results/` alone."""

import json
from typing import Any, NamedTuple

from canvas import INK, SOFT, Canvas

from delrec_jax.results.provenance import RESULTS

OURS, CONTROL, BASELINE, ORACLE = "#d98e04", "#9aa5b1", "#2f6db3", "#3f9a5f"
_LEFT, _ROW, _TOP = 178, 24, 78
_LEGEND = (
    (OURS, "ours"),
    (CONTROL, "controls"),
    (BASELINE, "without a language model"),
    (ORACLE, "oracle"),
)


class Row(NamedTuple):
    """A row of the figure."""

    system: str
    label: str
    color: str


class Panel(NamedTuple):
    """One corpus.

    Attributes:
        result: its folder in `results/`.
        heading: what stands above the panel.
        below: what stands below that, before users and seeds.
        end: where the axis ends.
        tick: from one tick to the next.
        rows: its systems.
    """

    result: str
    heading: str
    below: str
    end: float
    tick: float
    rows: tuple[Row, ...]


SHOP = Panel(
    "storefront",
    "A generated shop, small T5",
    "built so that a prompt can express the pattern",
    0.8,
    0.2,
    (
        Row("oracle", "Oracle", ORACLE),
        Row("delrec", "DELRec", OURS),
        Row("lm_distilled_prompt", "Frozen LM, distilled prompt", OURS),
        Row("lm_tuned_no_prompt", "Tuned LM, no prompt", CONTROL),
        Row("lm_tuned_random_prompt", "Tuned LM, random prompt", CONTROL),
        Row("lm_no_prompt", "Frozen LM, no prompt", CONTROL),
        Row("lm_shuffled_prompt", "Frozen LM, shuffled teacher", CONTROL),
        Row("markov", "Markov", BASELINE),
        Row("teacher", "SASRec, the teacher", BASELINE),
    ),
)
OFFICE = Panel(
    "minilm_office",
    "Amazon Office Products, MiniLM",
    "real data",
    0.16,
    0.04,
    (
        Row("delrec", "DELRec", OURS),
        Row("lm_distilled_prompt", "Frozen LM, distilled prompt", OURS),
        Row("lm_tuned_no_prompt", "Tuned LM, no prompt", CONTROL),
        Row("lm_tuned_random_prompt", "Tuned LM, random prompt", CONTROL),
        Row("lm_no_prompt", "Frozen LM, no prompt", CONTROL),
        Row("lm_shuffled_prompt", "Frozen LM, shuffled teacher", CONTROL),
        Row("teacher", "SASRec, the teacher", BASELINE),
        Row("ease", "EASE", BASELINE),
        Row("hybrid(markov+ease+tfidf)", "Markov + EASE + TF-IDF", BASELINE),
    ),
)


def findings() -> Canvas:
    """Both corpora side by side."""
    canvas = Canvas(980, 362, "NDCG@10 of the systems", _told())
    for place, panel in enumerate((SHOP, OFFICE)):
        _draw(canvas, panel, left=14 + 490 * place)
    for number, (color, words) in enumerate(_LEGEND):
        at = 24 + (0, 70, 160, 350)[number]
        canvas.dot((at, 340), color)
        canvas.write((at + 10, 344.5), words, size=12, color=SOFT)
    canvas.write(
        (956, 344.5), "NDCG@10, 95 % intervals over users", size=12, color=SOFT, anchor="end"
    )
    return canvas


def measured(panel: Panel) -> list[dict[str, float]]:
    """The stored NDCG@10 of each row: `mean`, `low` and `high`."""
    rows = json.loads((RESULTS / panel.result / "summary.json").read_text())["systems"]
    return [_one(rows, row.system)["NDCG@10"] for row in panel.rows]


def _one(rows: list[dict[str, Any]], system: str) -> dict[str, Any]:
    """The row over all users, ranked in the whole catalogue; of several teachers, under SASRec."""
    (row,) = [
        row
        for row in rows
        if (row["system"], row["protocol"], row["group"]) == (system, "full", "all")
        and row["teacher"] in ("", "sasrec")
    ]
    return row


def _draw(canvas: Canvas, panel: Panel, left: float) -> None:
    start, width = left + _LEFT, 255

    def x(value: float) -> float:
        return round(start + width * value / panel.end, 1)

    bottom = _TOP + _ROW * len(panel.rows) - 8
    canvas.write((left + 10, 34), panel.heading, size=14, bold=True)
    canvas.write((left + 10, 52), f"{panel.below}; {_size(panel)}", size=12, color=SOFT)
    for number in range(round(panel.end / panel.tick) + 1):
        tick = number * panel.tick
        canvas.line((x(tick), _TOP - 14), (x(tick), bottom))
        canvas.write((x(tick), bottom + 16), f"{tick:.2g}", size=11.5, color=SOFT, anchor="middle")
    for number, (row, cell) in enumerate(zip(panel.rows, measured(panel), strict=True)):
        y = _TOP + _ROW * number
        canvas.write((start - 10, y + 4), row.label, size=12.5, color=INK, anchor="end")
        canvas.line((x(cell["low"]), y), (x(cell["high"]), y), row.color, 2.5)
        canvas.dot((x(cell["mean"]), y), row.color)
        canvas.write((x(cell["high"]) + 7, y + 4), f"{cell['mean']:.3f}", size=11.5, color=SOFT)


def _size(panel: Panel) -> str:
    """How many users and seeds the numbers are of."""
    found = json.loads((RESULTS / panel.result / "summary.json").read_text())
    row = _one(found["systems"], "delrec")
    seeds = {
        one["seed"]
        for one in found["by_seed"]
        if all(one[key] == row[key] for key in ("system", "protocol", "group", "teacher"))
    }
    return f"{row['users']:,} users, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def _told() -> str:
    return " ".join(
        f"{panel.heading}: "
        + ", ".join(
            f"{row.label} {cell['mean']:.3f}"
            for row, cell in zip(panel.rows, measured(panel), strict=True)
        )
        + "."
        for panel in (SHOP, OFFICE)
    )
