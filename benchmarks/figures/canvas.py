"""A small SVG canvas for the figures of the docs: boxes, arrows, dots with intervals. The same bytes each time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

INK, SOFT, PAPER = "#1f2933", "#66727f", "#ffffff"
FILLS = {
    "data": ("#eef2f6", "#9fb0c0"),
    "trained": ("#fff1d6", "#d98e04"),
    "frozen": ("#e3eefb", "#5b8bc9"),
    "result": ("#e4f5e9", "#3f9a5f"),
    "plain": ("#ffffff", "#c5ced6"),
}
"""Fill and border of a box by what it holds."""

Point = tuple[float, float]


@dataclass
class Canvas:
    """An SVG picture that is filled from its upper left corner; lengths are in pixels.

    Attributes:
        width: of the picture.
        height: of the picture.
        title: what it shows, in one line.
        text: all that it shows, for those who cannot see it.
    """

    width: int
    height: int
    title: str
    text: str
    _parts: list[str] = field(default_factory=list)

    def write(
        self,
        at: Point,
        words: str,
        *,
        size: float = 13,
        color: str = INK,
        bold: bool = False,
        anchor: str = "start",
    ) -> None:
        """One line of text; `anchor` is start, middle or end, and says what of the line is at the point."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{at[0]:g}" y="{at[1]:g}" font-size="{size:g}" fill="{color}" text-anchor="{anchor}"{weight}>'
            f"{escape(words)}</text>"
        )

    def box(
        self, at: Point, size: Point, heading: str, lines: Sequence[str] = (), kind: str = "plain"
    ) -> None:
        """A box with a heading and lines of text, colored by its kind."""
        (x, y), (width, height), (fill, border) = at, size, FILLS[kind]
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{fill}" stroke="{border}" '
            'stroke-width="1.5"/>'
        )
        self.write((x + 12, y + 22), heading, bold=True, size=14)
        for number, line in enumerate(lines):
            self.write((x + 12, y + 42 + 17 * number), line, size=12.5, color=INK)

    def arrow(self, *points: Point, words: str = "") -> None:
        """An arrow through these points, with words above its first half."""
        path = " L ".join(f"{x:g} {y:g}" for x, y in points)
        self._parts.append(
            f'<path d="M {path}" fill="none" stroke="{SOFT}" stroke-width="1.6" marker-end="url(#head)"/>'
        )
        if words:
            (x0, y0), (x1, _) = points[:2]
            self.write(((x0 + x1) / 2, y0 - 7), words, size=11.5, color=SOFT, anchor="middle")

    def line(self, start: Point, end: Point, color: str = "#d9e0e6", width: float = 1) -> None:
        """A straight line."""
        self._parts.append(
            f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}" stroke="{color}" '
            f'stroke-width="{width:g}"/>'
        )

    def dot(self, at: Point, color: str) -> None:
        """A dot."""
        self._parts.append(f'<circle cx="{at[0]:g}" cy="{at[1]:g}" r="4.5" fill="{color}"/>')

    def svg(self) -> str:
        """The picture as a file's text."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" aria-labelledby="title text" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
        )
        mark = (
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M 0 0 L 10 5 L 0 10 z" fill="{SOFT}"/></marker></defs>'
        )
        told = f'<title id="title">{escape(self.title)}</title><desc id="text">{escape(self.text)}</desc>'
        paper = f'<rect width="{self.width}" height="{self.height}" rx="10" fill="{PAPER}"/>'
        return "\n".join([head, told, mark, paper, *self._parts, "</svg>"]) + "\n"
