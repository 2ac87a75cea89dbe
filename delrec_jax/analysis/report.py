"""The report of a run: one self-contained HTML page.

`ReportData` is plain data (rows, dicts, strings), so that this module depends on no model and a
report can be rewritten from the files of a workdir.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from delrec_jax.analysis import plots
from delrec_jax.analysis.beyond_blocks import beyond_blocks
from delrec_jax.analysis.blocks import agreement_block, result_blocks, whole_protocols
from delrec_jax.analysis.comparison_blocks import comparison_block
from delrec_jax.analysis.embedding_map import EmbeddingMap, embedding_map
from delrec_jax.analysis.headline import Headline
from delrec_jax.analysis.html import template
from delrec_jax.analysis.labels import base_label
from delrec_jax.analysis.seed_blocks import SeedMean, seed_mean_blocks, seed_means
from delrec_jax.analysis.standing_bars import picture
from delrec_jax.analysis.terminal import main_table
from delrec_jax.analysis.user_table import UserTable
from delrec_jax.errors import UserError
from delrec_jax.files import write_text

Row = Mapping[str, Any]


@dataclass(frozen=True)
class WorkedExample:
    """One user's question, and the answer of each system that is shown."""

    user: str
    history: tuple[str, ...]  # titles, oldest first
    target: str  # the title that came next
    candidates: tuple[str, ...]  # titles, distinct
    ranks: Mapping[str, Sequence[float]]  # system -> rank of each candidate, in their order
    cold: bool = False  # the target was never seen in training


@dataclass(frozen=True)
class Curve:
    """One plot of the training logs: a measured value by step."""

    key: str  # as logged, for example "loss"
    title: str
    runs: Mapping[str, str] | None = None  # runs to show -> label; all when None


def pretraining_curve(log: Sequence[Row]) -> Curve:
    """The plot of pre-training, one line per round that was needed."""
    rounds = [run for run in dict.fromkeys(row["run"] for row in log) if run.startswith("lm/")]
    names = {"lm": "language model"} | {run: run.removeprefix("lm/") for run in rounds}
    return Curve("gate", "Pre-training: accuracy on held-out questions", names)


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows."""

    title: str
    summary: Mapping[str, str]  # corpus, sizes, language model, teacher, seed ...
    metrics: Sequence[Row]  # rows of metrics.json
    command: str  # reproduces the run
    config: Mapping[str, Any]  # resolved
    comparisons: Sequence[Row] = ()  # dicts of evaluation.significance.Comparison
    agreement: Sequence[Row] = ()  # {"prompt", "measure", "value", "ci_low", "ci_high", "users"}
    beyond: Sequence[Row] = ()  # rows of evaluation.beyond_accuracy; none: not recorded
    log: Sequence[Row] = ()  # rows of metrics.jsonl files
    curves: Sequence[Curve] = ()
    adapter_ranks: Sequence[Row] = ()  # {"layer", "projection", "rank"}
    examples: Sequence[WorkedExample] = ()
    notes: Sequence[str] = field(default=())  # what a reader must know to read it honestly
    # P2Rec: {"category", "size" (items), "share" (of training interactions), "titles"} per row
    categories: Sequence[Row] = ()
    maps: Sequence[EmbeddingMap] = ()
    over_seeds: bool = False  # tables and bars show means over seeds, by teacher
    headline: Headline | None = None  # the first screen
    users: UserTable | None = None  # none: the lists were not recorded


def render_report(data: ReportData) -> str:
    """The page as text.

    Raises:
      UserError: there are no metric rows, no run logged a curve, or an example's ranks do not
        match its candidates.
    """
    if not data.metrics:
        raise UserError("report: no metric rows; run `delrec evaluate` on this workdir first")
    blocks = (seed_mean_blocks if data.over_seeds else result_blocks)(data.metrics)
    return template("report.html.j2").render(
        data=data,
        sentences=data.headline.sentences() if data.headline else [],
        picture=picture(data.headline) if data.headline else None,
        main=main_table(blocks),
        parts={part: [block for block in blocks if block.part == part] for part in _PART_TITLES},
        part_titles=_PART_TITLES,
        comparison=comparison_block(data.comparisons) if data.comparisons else None,
        beyond=beyond_blocks(data.beyond),
        agreement=agreement_block(data.agreement) if data.agreement else None,
        figures=_figures(data),
        maps=[(_map_figure(one), one.note) for one in data.maps],
        examples=[_example(example) for example in data.examples],
        config=json.dumps(data.config, indent=2, sort_keys=True, default=str),
    )


def write_report(path: Path, data: ReportData) -> None:
    """Writes the page atomically; errors as in `render_report`."""
    write_text(path, render_report(data))


_SEED_METRIC = "NDCG@10"
_PART_TITLES = {
    "headline": "Results",
    "popularity": "By popularity of the target",
    "cold": "Cold and warm targets",
}


def _first_means(metrics: Sequence[Row]) -> tuple[str, list[SeedMean]]:
    """The first protocol over all users (`full` if there is one), and the means of its table."""
    protocol = whole_protocols(metrics)[0]
    table = [row for row in metrics if row["protocol"] == protocol]
    return protocol, seed_means(table)


def _map_figure(one: EmbeddingMap) -> Markup:
    # Made by matplotlib, which escapes what it draws.
    return Markup(embedding_map(one.points, one.categories, title=one.title))  # nosec B704


def _bars(data: ReportData) -> list[str]:
    """Bar plots of every protocol over all users, or of the first one alone if they show means over seeds."""
    if data.over_seeds:
        protocol, means = _first_means(data.metrics)
        title = f"{_SEED_METRIC} · {protocol}"
        return [plots.seed_bars(means, metric=_SEED_METRIC, title=title)]
    return [
        plots.metric_bars(
            data.metrics, metric="HR@1", protocol=protocol, title=f"HR@1 · {protocol}"
        )
        for protocol in whole_protocols(data.metrics)
    ]


def _figures(data: ReportData) -> dict[str, list[Markup]]:
    """The page's pictures by section, as trusted markup (made here, not text from users)."""
    measures = dict.fromkeys(row["measure"] for row in data.agreement)
    agreement = [
        plots.agreement_bars(data.agreement, measure=measure, title=measure) for measure in measures
    ]
    curves = [
        plots.curve_plot(data.log, key=curve.key, title=curve.title, runs=curve.runs)
        for curve in data.curves
    ]
    ranks = []
    if data.adapter_ranks:
        ranks = [plots.rank_picture(data.adapter_ranks, title="AdaLoRA ranks after tuning")]
    sections = {"bars": _bars(data), "agreement": agreement, "curves": curves, "ranks": ranks}
    # Made by matplotlib, which escapes what it draws.
    return {name: [Markup(one) for one in made] for name, made in sections.items()}  # nosec B704


def _example(example: WorkedExample) -> dict[str, Any]:
    """An example as lines, in the order of the last system's ranks, best first."""
    for system, ranks in example.ranks.items():
        if len(ranks) != len(example.candidates):
            raise UserError(
                f"report: example of user '{example.user}': {len(ranks)} ranks of '{system}' for "
                f"{len(example.candidates)} candidates; give one rank per candidate"
            )
    if not example.ranks:
        raise UserError(f"report: example of user '{example.user}' shows no system's ranks")
    systems = list(example.ranks)
    order = sorted(
        range(len(example.candidates)), key=lambda place: example.ranks[systems[-1]][place]
    )
    lines = [
        {
            "title": example.candidates[place],
            "ranks": [f"{example.ranks[system][place]:g}" for system in systems],
            "is_target": example.candidates[place] == example.target,
        }
        for place in order
    ]
    return {
        "user": example.user,
        "history": example.history,
        "target": example.target,
        "cold": example.cold,
        "systems": [base_label(system) for system in systems],
        "lines": lines,
        "found": example.target in example.candidates,
    }
