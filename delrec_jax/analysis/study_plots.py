"""Figures of a study as inline SVG: bars, a value by axis with bands, heat maps, cost against quality.

Each is plain data with `svg`, one `<svg>` element whose label says the numbers, and `block`, the same numbers as a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from delrec_jax.analysis.blocks import Block, Cell, Line
from delrec_jax.analysis.drawing import (
    DASHES,
    INK,
    PALETTE,
    STYLE,
    horizontal_bars,
    new_figure,
    svg_text,
)
from delrec_jax.errors import UserError

Value = float | int | str | bool
"""A value of an axis; numbers are drawn at their places, others one after another."""

_MARKERS = "osD^vP*X"
_TICKS = 8  # at most so many values of an axis are all written below it
_WIDE = 20.0  # an axis whose largest value is this many times the smallest is drawn in logarithms


@dataclass(frozen=True)
class Measured:
    """A mean with its interval; without one, both ends are None."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def cell(self) -> Cell:
        """The numbers as a table shows them."""
        known = self.low is not None and self.high is not None
        return Cell(f"{self.value:.4f}", f"[{self.low:.4f}, {self.high:.4f}]" if known else "")

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; the value itself where there is none."""
        low = self.value if self.low is None else self.low
        return low, self.value if self.high is None else self.high


@dataclass(frozen=True)
class Bars:
    """One metric of several systems as horizontal bars."""

    title: str
    metric: str
    bars: tuple[Measured, ...]

    @property
    def block(self) -> Block:
        """The bars as a table."""
        lines = tuple(Line("", bar.label, (bar.cell,)) for bar in self.bars)
        return Block(self.title, "", ("System", self.metric), lines)

    def svg(self) -> str:
        """The figure."""
        rows = [
            {"value": bar.value, "ci_low": bar.ends[0], "ci_high": bar.ends[1]} for bar in self.bars
        ]
        with mpl.rc_context(STYLE):
            figure, axes = new_figure(height=0.9 + 0.29 * len(rows))
            horizontal_bars(
                axes,
                rows,
                labels=[bar.label for bar in self.bars],
                colours=[PALETTE[0]] * len(rows),
                digits=4,
            )
            axes.set(title=self.title, xlabel=self.metric)
            return svg_text(figure, label=f"{self.title}: {_spoken(self.block)}")


@dataclass(frozen=True)
class Curve:
    """One system by the values of an axis: of each value its mean and the ends of the band; None where there is no run."""

    label: str
    points: tuple[Measured | None, ...]


@dataclass(frozen=True)
class ByAxis:
    """One metric by the values of an axis, one curve per system."""

    title: str
    axis: str
    metric: str
    values: tuple[Value, ...]
    curves: tuple[Curve, ...]

    def __post_init__(self) -> None:
        for curve in self.curves:
            if len(curve.points) != len(self.values):
                raise UserError(
                    f"plot '{self.title}': '{curve.label}' has {len(curve.points)} points for {len(self.values)} values of "
                    f"{self.axis}; give one for each, None where there is no run"
                )

    @property
    def block(self) -> Block:
        """The curves as a table, one line per value."""
        lines = tuple(
            Line(
                "", _text(value), tuple(map(_cell, (curve.points[place] for curve in self.curves)))
            )
            for place, value in enumerate(self.values)
        )
        columns = (self.axis, *(curve.label for curve in self.curves))
        return Block(self.title, "", columns, lines)

    def svg(self) -> str:
        """The figure."""
        with mpl.rc_context(STYLE):
            figure, axes = new_figure(height=3.1)
            places = _places(axes, self.values)
            for number, curve in enumerate(self.curves):
                known = [
                    (place, point)
                    for place, point in sorted(zip(places, curve.points, strict=True), key=_first)
                    if point is not None
                ]
                if not known:
                    continue
                x = [place for place, _ in known]
                color = PALETTE[number % len(PALETTE)]
                axes.plot(
                    x,
                    [point.value for _, point in known],
                    color=color,
                    linestyle=DASHES[number % len(DASHES)],
                    marker=_MARKERS[number % len(_MARKERS)],
                    markersize=4,
                    label=curve.label,
                )
                low, high = zip(*(point.ends for _, point in known), strict=True)
                axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axes.set(title=self.title, xlabel=self.axis, ylabel=self.metric)
            figure.legend(loc="outside lower left", ncols=2 if len(self.curves) > 1 else 1)
            return svg_text(figure, label=f"{self.title}: {_spoken(self.block)}")


@dataclass(frozen=True)
class HeatMap:
    """One metric of one system by two axes.

    Attributes:
        rows, columns: the names of the axes.
        row_values, column_values: their values.
        grid: a mean per row and column; None where there is no run.
    """

    title: str
    metric: str
    rows: str
    columns: str
    row_values: tuple[Value, ...]
    column_values: tuple[Value, ...]
    grid: tuple[tuple[float | None, ...], ...]

    def __post_init__(self) -> None:
        shape = (len(self.row_values), {len(self.column_values)})
        if shape != (len(self.grid), {len(row) for row in self.grid}):
            raise UserError(
                f"plot '{self.title}': a grid of {[len(row) for row in self.grid]} for {shape[0]} values of {self.rows} and "
                f"{len(self.column_values)} of {self.columns}; give one value for each pair, None where there is no run"
            )

    @property
    def block(self) -> Block:
        """The map as a table."""
        lines = tuple(
            Line("", _text(value), tuple(Cell("–" if one is None else f"{one:.4f}") for one in row))
            for value, row in zip(self.row_values, self.grid, strict=True)
        )
        corner = f"{self.rows} \\ {self.columns}"
        return Block(self.title, "", (corner, *map(_text, self.column_values)), lines)

    def svg(self) -> str:
        """The figure."""
        grid = np.array([[np.nan if one is None else one for one in row] for row in self.grid])
        low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
        span = (high - low) or 1.0
        with mpl.rc_context(STYLE):
            figure, axes = new_figure(height=1.2 + 0.34 * len(self.row_values))
            axes.grid(False)
            # The darkest cells stay light enough for the blues beside them to be told apart.
            axes.imshow(
                grid, cmap="Blues", vmin=low - 0.15 * span, vmax=high + 0.3 * span, aspect="auto"
            )
            for (row, column), one in np.ndenumerate(grid):
                ink = "white" if one > low + 0.75 * span else INK
                text = "" if np.isnan(one) else f"{one:.4f}"
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
            axes.set_xticks(range(len(self.column_values)), list(map(_text, self.column_values)))
            axes.set_yticks(range(len(self.row_values)), list(map(_text, self.row_values)))
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set(title=self.title, xlabel=self.columns, ylabel=self.rows)
            return svg_text(figure, label=f"{self.title}, {self.metric}: {_spoken(self.block)}")


@dataclass(frozen=True)
class CostAgainstQuality:
    """One metric against what it costs, one point per system.

    Attributes:
        cost: what is paid, with its unit, such as "seconds per training example".
        points: each with its cost, more than 0.
    """

    title: str
    cost: str
    metric: str
    points: tuple[tuple[float, Measured], ...]

    @property
    def block(self) -> Block:
        """The points as a table."""
        lines = tuple(
            Line("", one.label, (Cell(f"{cost:.4g}"), one.cell)) for cost, one in self.points
        )
        return Block(self.title, "", ("System", self.cost, self.metric), lines)

    def svg(self) -> str:
        """The figure."""
        with mpl.rc_context(STYLE):
            figure, axes = new_figure(height=3.1 + 0.1 * len(self.points))
            _scale(axes, [cost for cost, _ in self.points])
            for number, (cost, one) in enumerate(self.points):
                ends = np.abs(np.array(one.ends) - one.value)[:, None]
                axes.errorbar(
                    [cost],
                    [one.value],
                    yerr=ends,
                    fmt=_MARKERS[number % len(_MARKERS)],
                    color=PALETTE[number % len(PALETTE)],
                    elinewidth=1,
                    capsize=2.5,
                    label=one.label,
                )
            axes.set(title=self.title, xlabel=self.cost, ylabel=self.metric)
            figure.legend(loc="outside lower left", ncols=2)
            return svg_text(figure, label=f"{self.title}: {_spoken(self.block)}")


Figure = Bars | ByAxis | HeatMap | CostAgainstQuality


def _first(pair: tuple[float, Measured | None]) -> float:
    return pair[0]


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(point: Measured | None) -> Cell:
    return Cell("–") if point is None else point.cell


def _places(axes: Axes, values: Sequence[Value]) -> list[float]:
    """Where the values of the horizontal axis lie, which gets ticks and a scale for them."""
    numbers = [float(one) for one in values if type(one) in (int, float)]
    if len(numbers) < len(values):
        axes.set_xticks(range(len(values)), list(map(_text, values)))
        return [float(place) for place in range(len(values))]
    _scale(axes, numbers)
    if len(numbers) <= _TICKS:
        axes.set_xticks(numbers, list(map(_text, values)))
        axes.set_xticks([], minor=True)
    return numbers


def _scale(axes: Axes, numbers: Sequence[float]) -> None:
    if min(numbers) > 0 and max(numbers) >= _WIDE * min(numbers):
        axes.set_xscale("log")


def _spoken(block: Block) -> str:
    lines = []
    for line in block.lines:
        names = block.columns[1:]
        told = (f"{name} {cell.text}" for name, cell in zip(names, line.cells, strict=True))
        lines.append(f"{line.label}: {', '.join(told)}")
    return "; ".join(lines)
