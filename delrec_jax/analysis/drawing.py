"""What all figures share: colors, style, an empty figure, bars, and the figure's SVG text."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = Mapping[str, Any]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
DASHES = ("-", "--", "-.", ":")

INK = "#1f2933"
INK_ON_COLOR = "#1f2930"
"""As dark as `INK`, and dark on a dark page too: for text on a light color of the figure's own."""

QUIET = "#8a94a0"
_GRID = "#e4e8ec"
# What a page may replace by colors that suit its ground (style.css.j2); elsewhere a figure has its own.
_OF_PAGE = {
    INK: "ink",
    QUIET: "edge",
    _GRID: "grid",
    PALETTE[0].lower(): "blue",
    PALETTE[6]: "gray",
    "#c3cad2": "pale",
}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.facecolor": "none",  # the page's ground, light or dark
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a "$" in a title is literal
    "svg.fonttype": "path",  # looks the same wherever it is opened
}

TITLE: Any = {"x": 0.01, "horizontalalignment": "left"}
"""Where a figure's title is: at the left edge, as long labels leave the axes too narrow for it."""


def new_figure(*, height: float) -> tuple[Figure, Axes]:
    """A figure outside pyplot's global list, 4.8 inches (460 px) wide."""
    figure = Figure(figsize=(4.8, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure, figure.subplots()


def horizontal_bars(
    axes: Axes,
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    colours: Sequence[str],
    places: Float[np.ndarray, "N"] | None = None,
    digits: int = 3,
) -> None:
    """Horizontal bars from top to bottom with intervals; each value is written after its interval.

    Args:
      axes: where to draw.
      rows: {"value", "ci_low", "ci_high"} per bar.
      labels: one per bar.
      colours: one per bar.
      places: positions of the bars from the top; 0, 1, 2 ... when None.
      digits: decimals of the written values.
    """
    values = np.array([row["value"] for row in rows])
    low = np.array([row["ci_low"] for row in rows])
    high = np.array([row["ci_high"] for row in rows])
    places = np.arange(len(rows)) if places is None else places
    # A tiny sample's percentile interval may not contain its mean; lengths must not be negative.
    errors = np.maximum([values - low, high - values], 0)
    axes.barh(places, values, color=colours, height=0.68)
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
    left, right = min(0.0, low.min()), max(high.max(), 1e-3)
    for place, value, end in zip(places, values, high, strict=True):
        behind = max(end, 0.0) + 0.02 * (right - left)
        axes.text(behind, place, f"{value:.{digits}f}", va="center", fontsize=9)
    axes.set_yticks(places, labels)
    axes.set_xlim(left * 1.05, right + 0.16 * (right - left))
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def svg_text(figure: Figure, *, label: str, dpi: float | Literal["figure"] = "figure") -> str:
    """The figure as one `<svg>` element, with the same bytes for the same figure.

    Args:
      figure: from `new_figure`.
      label: what a screen reader says.
      dpi: resolution of rasterized parts; the figure's own by default.
    """
    buffer = io.StringIO()
    # Ids are salted with the label, so that those of inline figures cannot clash.
    salt = hashlib.sha256(label.encode()).hexdigest()[:12]
    with mpl.rc_context({"svg.hashsalt": salt}):
        nothing = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", metadata=nothing, dpi=dpi)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # implied in HTML; leaves no URL
    # matplotlib repeats ids such as "figure_1" in every file; only referenced ones are needed.
    referenced = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in referenced else "", text)
    for name in referenced:
        text = re.sub(rf'(["#]){re.escape(name)}(?=[")])', rf"\g<1>{salt}-{name}", text)
    for color, name in _OF_PAGE.items():
        text = re.sub(rf"(?<=: ){color}(?=[;\"])", f"var(--{name}, {color})", text)
    aria = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{aria}" ', 1).strip()
