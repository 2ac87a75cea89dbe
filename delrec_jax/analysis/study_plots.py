"""Figures of a study as inline SVG: bars, and cost against quality; `axis_plots` has those of axes.

Each is plain data with `svg`, one `<svg>` element whose label says the numbers, and `block`, the same numbers as a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from delrec_jax.analysis.blocks import Block, Cell, Line
from delrec_jax.analysis.drawing import (
    PALETTE,
    STYLE,
    TITLE,
    horizontal_bars,
    new_figure,
    svg_text,
)

MARKERS = "osD^vP*X"
_SHORT = 24  # letters of a label of which two fit side by side
_WIDE = 20.0  # an axis whose largest value is this many times the smallest is drawn in logarithms


class Figure(Protocol):
    """What a page can show."""

    @property
    def block(self) -> Block:
        """The numbers as a table."""

    def svg(self) -> str:
        """The figure."""


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
            figure.suptitle(self.title, **TITLE)
            axes.set(xlabel=self.metric)
            return svg_text(figure, label=f"{self.title}: {spoken(self.block)}")


@dataclass(frozen=True)
class CostAgainstQuality:
    """One metric against what it costs, one point per system.

    Attributes:
      cost: what is paid, with its unit, such as "seconds per training example".
      points: each with its cost.
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
            columns = 2 if max(len(one.label) for _, one in self.points) <= _SHORT else 1
            figure, axes = new_figure(height=3.1 + 0.2 * len(self.points) / columns)
            scale(axes, [cost for cost, _ in self.points])
            for number, (cost, one) in enumerate(self.points):
                ends = np.abs(np.array(one.ends) - one.value)[:, None]
                axes.errorbar(
                    [cost],
                    [one.value],
                    yerr=ends,
                    fmt=MARKERS[number % len(MARKERS)],
                    color=PALETTE[number % len(PALETTE)],
                    elinewidth=1,
                    capsize=2.5,
                    label=one.label,
                )
            figure.suptitle(self.title, **TITLE)
            axes.set(xlabel=self.cost, ylabel=self.metric)
            figure.legend(loc="outside lower left", ncols=columns)
            return svg_text(figure, label=f"{self.title}: {spoken(self.block)}")


def scale(axes: Axes, numbers: Sequence[float]) -> None:
    """Draws the horizontal axis in logarithms if its numbers are far apart."""
    if min(numbers) > 0 and max(numbers) >= _WIDE * min(numbers):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda number, _: f"{number:g}")  # 0.01, and no formula
        axes.xaxis.set_minor_formatter(NullFormatter())


def spoken(block: Block) -> str:
    """A table as one sentence, for a screen reader."""
    lines = []
    for line in block.lines:
        names = block.columns[1:]
        told = (f"{name} {cell.text}" for name, cell in zip(names, line.cells, strict=True))
        lines.append(f"{line.label}: {', '.join(told)}")
    return "; ".join(lines)
