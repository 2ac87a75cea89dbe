"""Figures as inline SVG: small, deterministic, readable without color vision.

Each function returns the text of one `<svg>` element about 460 px wide, so that a page
can show several side by side, with labels that are still readable on a phone. The colors are
Okabe and Ito's; lines also differ by dash, bars by position.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np

from delrec_jax.analysis.drawing import (
    DASHES,
    INK_ON_COLOR,
    PALETTE,
    STYLE,
    TITLE,
    Row,
    horizontal_bars,
    new_figure,
    svg_text,
)
from delrec_jax.analysis.labels import base_label
from delrec_jax.analysis.seed_blocks import SeedMean
from delrec_jax.errors import UserError
from delrec_jax.evaluation.systems import system_order

_BAR_COLOURS = {
    "delrec": PALETTE[0],
    "teacher_augmented": PALETTE[0],
    "teacher": PALETTE[1],
    "oracle": "#c3cad2",
}


def curve_plot(
    rows: Sequence[Row], *, key: str, title: str, runs: Mapping[str, str] | None = None
) -> str:
    """One measured value against the training step, one line per run.

    Args:
      rows: rows of `metrics.jsonl` files; those without `key` are skipped.
      key: the measured value, for example "loss" or "valid/agreement".
      title: above the plot.
      runs: runs to show -> their label; all runs under their own names when None.

    Raises:
      UserError: no row of these runs holds `key`.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if key in row and (runs is None or row["run"] in runs):
            series.setdefault(row["run"], []).append((row["step"], row[key]))
    if not series:
        logged = sorted({name for row in rows for name in row} - {"run", "step"})
        raise UserError(
            f"plot '{title}': no run logged '{key}' (logged: {', '.join(logged) or 'nothing'})"
        )
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(height=3.1)
        for place, (run, points) in enumerate(series.items()):
            steps, values = zip(*sorted(points), strict=True)
            axes.plot(
                steps,
                values,
                color=PALETTE[place % len(PALETTE)],
                linestyle=DASHES[place % len(DASHES)],
                marker="o" if len(steps) <= 25 else None,
                markersize=3.5,
                label=(runs or {}).get(run, run),
            )
        figure.suptitle(title, **TITLE)
        axes.set(xlabel="step", ylabel=key)
        # Below the axes, where it cannot cover a curve.
        figure.legend(loc="outside lower left", ncols=2 if len(series) > 1 else 1)
        return svg_text(figure, label=f"{title}: {key} by step for {', '.join(series)}")


def metric_bars(rows: Sequence[Row], *, metric: str, protocol: str, title: str) -> str:
    """One metric of all systems under one protocol as bars with intervals.

    Args:
      rows: rows of `metrics.json`; one bar per matching row.
      metric: for example "HR@1".
      protocol: for example "full".
      title: above the plot.

    Raises:
      UserError: no row has this metric and protocol.
    """
    chosen = [row for row in rows if row["metric"] == metric and row["protocol"] == protocol]
    if not chosen:
        raise UserError(f"plot '{title}': no rows with metric '{metric}', protocol '{protocol}'")
    chosen = sorted(chosen, key=lambda row: system_order(row["system"]))
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(height=0.9 + 0.29 * len(chosen))
        horizontal_bars(
            axes,
            chosen,
            labels=[_bar_label(row) for row in chosen],
            colours=[_BAR_COLOURS.get(row["system"], PALETTE[5]) for row in chosen],
        )
        figure.suptitle(title, **TITLE)
        axes.set(xlabel=f"{metric} with 95 % interval")
        return svg_text(figure, label=f"{title}: {_spoken(chosen, 'system')}")


def _bar_label(row: Row) -> str:
    """The system's label; of the selected step only the fact that it is 0, as bars need the room."""
    return base_label(row["system"]) + (" (step 0)" if row["step"] == 0 else "")


def seed_bars(means: Sequence[SeedMean], *, metric: str, title: str) -> str:
    """One metric of all systems as bars, grouped by teacher, with the spread over seeds.

    Args:
      means: the lines of one table, from `seed_blocks.seed_means`.
      metric: for example "NDCG@10".
      title: above the plot.

    Raises:
      UserError: no system has this metric.
    """
    chosen = [one for one in means if metric in one.values]
    if not chosen:
        raise UserError(f"plot '{title}': no rows with metric '{metric}'")
    rows = []
    for one in chosen:
        mean, spread = one.values[metric], one.spreads.get(metric, 0.0)
        rows.append({"value": mean, "ci_low": mean - spread, "ci_high": mean + spread})
    changes = [a.teacher != b.teacher for a, b in pairwise(chosen)]
    places = np.arange(len(chosen)) + 0.7 * np.cumsum([0, *changes])  # a gap before a new teacher
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(height=0.9 + 0.29 * (places[-1] + 1))
        horizontal_bars(
            axes,
            rows,
            labels=[one.label for one in chosen],
            colours=[_BAR_COLOURS.get(one.system, PALETTE[5]) for one in chosen],
            places=places,
            digits=4,
        )
        figure.suptitle(title, **TITLE)
        axes.set(xlabel=f"{metric}, mean ± sd over seeds")
        spoken = ", ".join(f"{one.label} {one.values[metric]:.4f}" for one in chosen)
        return svg_text(figure, label=f"{title}: {spoken}")


def agreement_bars(agreement: Sequence[Row], *, measure: str, title: str) -> str:
    """Every prompt's agreement with the teacher as bars with intervals.

    Args:
      agreement: {"prompt", "measure", "value", "ci_low", "ci_high", ...} per row.
      measure: which of the measures to draw.
      title: above the plot.

    Raises:
      UserError: no row has this measure.
    """
    chosen = [row for row in agreement if row["measure"] == measure]
    if not chosen:
        raise UserError(f"plot '{title}': no agreement row measures '{measure}'")
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(height=0.9 + 0.34 * len(chosen))
        horizontal_bars(
            axes,
            chosen,
            labels=[row["prompt"] for row in chosen],
            colours=[PALETTE[0] if "distil" in row["prompt"] else PALETTE[5] for row in chosen],
        )
        figure.suptitle(title, **TITLE)
        axes.set(xlabel=f"{measure} with 95 % interval")
        return svg_text(figure, label=f"{title}: {_spoken(chosen, 'prompt')}")


def rank_picture(ranks: Sequence[Row], *, title: str) -> str:
    """The ranks that AdaLoRA kept, with layers as rows and projections as columns.

    Args:
      ranks: {"layer", "projection", "rank"} per adapted matrix, in the order to show.
      title: above the picture.

    Raises:
      UserError: there is no adapted matrix.
    """
    if not ranks:
        raise UserError(f"plot '{title}': no adapter ranks; run `delrec tune` first")
    layers = list(dict.fromkeys(row["layer"] for row in ranks))
    projections = list(dict.fromkeys(row["projection"] for row in ranks))
    grid = np.full((len(layers), len(projections)), np.nan)
    for row in ranks:
        grid[layers.index(row["layer"]), projections.index(row["projection"])] = row["rank"]
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(height=1.0 + 0.32 * len(layers))
        axes.grid(False)
        top = max(1.0, float(np.nanmax(grid)))
        axes.imshow(grid, cmap="Blues", vmin=0, vmax=top * 1.3, aspect="auto")
        for (line, column), rank in np.ndenumerate(grid):
            text = "" if np.isnan(rank) else f"{rank:g}"
            ink = "white" if rank > 0.85 * top else INK_ON_COLOR
            axes.text(column, line, text, ha="center", va="center", color=ink)
        axes.set_xticks(range(len(projections)), projections)
        axes.set_yticks(range(len(layers)), layers)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.suptitle(title, **TITLE)
        spoken = ", ".join(f"{row['layer']} {row['projection']} {row['rank']:g}" for row in ranks)
        return svg_text(figure, label=f"{title}: {spoken}")


def _spoken(rows: Sequence[Row], name: str) -> str:
    return ", ".join(f"{row[name]} {row['value']:.3f}" for row in rows)
