"""Figures as inline SVG: small, deterministic, readable without colour vision.

Each function returns the text of one `<svg>` element about 460 px wide, so that a page
can put it inline, several side by side, and still show its labels on a telephone. Colours are
Okabe and Ito's; lines also differ by dash, bars by position.
"""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from delrec_jax.analysis.blocks import SYSTEM_LABELS
from delrec_jax.errors import UserError
from delrec_jax.evaluation.records import SYSTEMS

Row = Mapping[str, Any]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
DASHES = ("-", "--", "-.", ":")

_INK = "#1f2933"
_QUIET = "#8a94a0"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8ec",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a "$" in a title is a "$"
    "svg.fonttype": "path",  # looks the same wherever it is opened
}


def curve_plot(
    rows: Sequence[Row], *, key: str, title: str, runs: Mapping[str, str] | None = None
) -> str:
    """One measured value against the training step, one line per run.

    Args:
        rows: rows of `metrics.jsonl` files; those without `key` are passed over.
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
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(height=3.1)
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
        axes.set(title=title, xlabel="step", ylabel=key)
        # Below the axes: never over a line, however the curves run.
        figure.legend(loc="outside lower left", ncols=2 if len(series) > 1 else 1)
        return _svg(figure, label=f"{title}: {key} by step for {', '.join(series)}")


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
    chosen = [
        row
        for row in rows
        if row["metric"] == metric and row["protocol"] == protocol and "@" not in row["split"]
    ]
    if not chosen:
        raise UserError(f"plot '{title}': no rows with metric '{metric}', protocol '{protocol}'")
    chosen = sorted(chosen, key=lambda row: SYSTEMS.index(row["system"]))
    colours = {"delrec": PALETTE[0], "teacher": PALETTE[1], "oracle": "#c3cad2"}
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(height=0.9 + 0.29 * len(chosen))
        _horizontal_bars(
            axes,
            chosen,
            labels=[SYSTEM_LABELS[row["system"]] for row in chosen],
            colours=[colours.get(row["system"], PALETTE[5]) for row in chosen],
        )
        axes.set(title=title, xlabel=f"{metric} with 95 % interval")
        return _svg(figure, label=f"{title}: {_spoken(chosen, 'system')}")


def agreement_bars(agreement: Sequence[Row], *, measure: str, title: str) -> str:
    """Agreement with the teacher of every prompt as bars with intervals.

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
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(height=0.9 + 0.34 * len(chosen))
        _horizontal_bars(
            axes,
            chosen,
            labels=[row["prompt"] for row in chosen],
            colours=[PALETTE[0] if "distil" in row["prompt"] else PALETTE[5] for row in chosen],
        )
        axes.set(title=title, xlabel=f"{measure} with 95 % interval")
        return _svg(figure, label=f"{title}: {_spoken(chosen, 'prompt')}")


def rank_picture(ranks: Sequence[Row], *, title: str) -> str:
    """The ranks that AdaLoRA left, layers down, projections across.

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
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(height=1.0 + 0.32 * len(layers))
        axes.grid(False)
        top = max(1.0, float(np.nanmax(grid)))
        axes.imshow(grid, cmap="Blues", vmin=0, vmax=top * 1.3, aspect="auto")
        for (line, column), rank in np.ndenumerate(grid):
            text = "" if np.isnan(rank) else f"{rank:g}"
            ink = "white" if rank > 0.85 * top else _INK
            axes.text(column, line, text, ha="center", va="center", color=ink)
        axes.set_xticks(range(len(projections)), projections)
        axes.set_yticks(range(len(layers)), layers)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(title)
        spoken = ", ".join(f"{row['layer']} {row['projection']} {row['rank']:g}" for row in ranks)
        return _svg(figure, label=f"{title}: {spoken}")


def _figure(*, height: float) -> tuple[Figure, Axes]:
    """A figure outside pyplot's global list, 4.8 inches (460 px) wide."""
    figure = Figure(figsize=(4.8, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure, figure.subplots()


def _horizontal_bars(
    axes: Axes, rows: Sequence[Row], *, labels: Sequence[str], colours: Sequence[str]
) -> None:
    """Bars from top to bottom with intervals, values written behind the interval's end."""
    values = np.array([row["value"] for row in rows])
    low = np.array([row["ci_low"] for row in rows])
    high = np.array([row["ci_high"] for row in rows])
    places = np.arange(len(rows))
    # A percentile interval of a tiny sample may leave out its mean: no negative length.
    errors = np.maximum([values - low, high - values], 0)
    axes.barh(places, values, color=colours, height=0.68)
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor=_INK, elinewidth=1, capsize=2.5)
    left, right = min(0.0, low.min()), max(high.max(), 1e-3)
    for place, value in enumerate(values):
        behind = max(high[place], 0.0) + 0.02 * (right - left)
        axes.text(behind, place, f"{value:.3f}", va="center", fontsize=9)
    axes.set_yticks(places, labels)
    axes.set_xlim(left * 1.05, right + 0.16 * (right - left))
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _spoken(rows: Sequence[Row], name: str) -> str:
    return ", ".join(f"{row[name]} {row['value']:.3f}" for row in rows)


def _svg(figure: Figure, *, label: str) -> str:
    """The figure as one `<svg>` element, the same bytes for the same figure."""
    buffer = io.StringIO()
    # Names inside the file are salted by its label, so that inline figures cannot clash.
    salt = hashlib.sha256(label.encode()).hexdigest()[:12]
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # HTML knows them: no address is left
    # matplotlib repeats ids such as "figure_1" in every file; only referenced ones must stay.
    referenced = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in referenced else "", text)
    for name in referenced:
        text = re.sub(rf'(["#]){re.escape(name)}(?=[")])', rf"\g<1>{salt}-{name}", text)
    aria = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{aria}" ', 1).strip()
