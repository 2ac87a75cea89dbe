"""Figures of a study's axes: a value by one axis with bands, and heat maps of two; as in `study_plots`."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from delrec_jax.analysis.blocks import NOTHING, Block, Cell, Line
from delrec_jax.analysis.drawing import (
    DASHES,
    INK_ON_COLOR,
    PALETTE,
    STYLE,
    TITLE,
    new_figure,
    svg_text,
)
from delrec_jax.analysis.study_plots import MARKERS, Measured, scale, spoken
from delrec_jax.errors import UserError

Value = float | int | str | bool
"""A value of an axis; numbers are drawn at their places, others one after another."""

_TICKS = 8  # at most so many values of an axis are all written below it


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
        if not self.values:
            raise UserError(f"plot '{self.title}': {self.axis} has no values; give at least one")
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
            order = np.argsort(places, kind="stable")
            x = np.array(places)[order]
            for number, curve in enumerate(self.curves):
                # Where there is no run, or no interval, NaN leaves a gap.
                rows = [_triple(curve.points[place]) for place in order]
                value, low, high = np.array(rows).T
                color = PALETTE[number % len(PALETTE)]
                axes.plot(
                    x,
                    value,
                    color=color,
                    linestyle=DASHES[number % len(DASHES)],
                    marker=MARKERS[number % len(MARKERS)],
                    markersize=4,
                    label=curve.label,
                )
                axes.vlines(x, low, high, color=color, alpha=0.4, linewidth=1)
                axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            figure.suptitle(self.title, **TITLE)
            axes.set(xlabel=self.axis, ylabel=self.metric)
            figure.legend(loc="outside lower left", ncols=2 if len(self.curves) > 1 else 1)
            return svg_text(figure, label=f"{self.title}: {spoken(self.block)}")


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
        if all(one is None for row in self.grid for one in row):
            raise UserError(f"plot '{self.title}': there is no run; give at least one value")

    @property
    def block(self) -> Block:
        """The map as a table."""
        lines = tuple(
            Line(
                "",
                _text(value),
                tuple(Cell(NOTHING if one is None else f"{one:.4f}") for one in row),
            )
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
                ink = "white" if one > low + 0.75 * span else INK_ON_COLOR
                text = "" if np.isnan(one) else f"{one:.4f}"
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
            axes.set_xticks(range(len(self.column_values)), list(map(_text, self.column_values)))
            axes.set_yticks(range(len(self.row_values)), list(map(_text, self.row_values)))
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            figure.suptitle(self.title, **TITLE)
            axes.set(xlabel=self.columns, ylabel=self.rows)
            return svg_text(figure, label=f"{self.title}, {self.metric}: {spoken(self.block)}")


def _triple(point: Measured | None) -> tuple[float, float, float]:
    """A point's value and ends; NaN for what there is not."""
    if point is None:
        return (np.nan,) * 3
    known = point.low is not None and point.high is not None
    return (point.value, *(point.ends if known else (np.nan, np.nan)))


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(point: Measured | None) -> Cell:
    return Cell(NOTHING) if point is None else point.cell


def _places(axes: Axes, values: Sequence[Value]) -> list[float]:
    """Where the values of the horizontal axis lie, which gets ticks and a scale for them."""
    numbers = [float(one) for one in values if type(one) in (int, float)]
    if len(numbers) < len(values):
        axes.set_xticks(range(len(values)), list(map(_text, values)))
        return [float(place) for place in range(len(values))]
    scale(axes, numbers)
    if len(numbers) <= _TICKS:
        axes.set_xticks(numbers, list(map(_text, values)))
        axes.set_xticks([], minor=True)
    return numbers
