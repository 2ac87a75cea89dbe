"""A table as CSV, for other programs, and as LaTeX with booktabs, for papers; Markdown is `analysis.blocks.to_markdown`."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from delrec_jax.analysis.blocks import Block, Cell, to_markdown
from delrec_jax.files import write_text

_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "\u00a0": "~",
}
_TO_LATEX = str.maketrans(_LATEX)


def to_csv(block: Block) -> str:
    """The table as CSV in UTF-8 with one line of names; title and note are not in it.

    What is shown behind a number, such as its interval, has a column of its own, `NAME interval`, if any line has it.
    """
    lines = [line.cells for line in block.lines]
    intervals = [any(cell.interval for cell in column) for column in zip(*lines, strict=True)]
    if not lines:
        intervals = [False] * (len(block.columns) - 1)
    head = [block.columns[0]]
    for name, has_interval in zip(block.columns[1:], intervals, strict=True):
        head += [name, f"{name} interval"] if has_interval else [name]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for line in block.lines:
        row = [line.label]
        for cell, has_interval in zip(line.cells, intervals, strict=True):
            row += [cell.text, cell.interval] if has_interval else [cell.text]
        writer.writerow(row)
    return text.getvalue()


def to_latex(block: Block, name: str = "") -> str:
    """The table as a LaTeX `table` of the package booktabs, with title and note as its caption.

    Args:
      block: the table.
      name: with its title, its label; needed where two tables have one title.
    """
    columns = "l" + "r" * (len(block.columns) - 1)
    rows = [_row(block.columns)]
    rows += [_row([line.label, *map(_text, line.cells)]) for line in block.lines]
    label = re.sub(r"[^a-z0-9]+", "-", f"{name} {block.title}".lower()).strip("-")
    return "\n".join(
        (
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{\textbf{{{latex(block.title)}.}} {latex(block.note)}}}",
            rf"  \label{{tab:{label}}}",
            rf"  \begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"    \toprule",
            f"    {rows[0]}",
            r"    \midrule",
            *(f"    {row}" for row in rows[1:]),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        )
    )


def latex(text: str) -> str:
    """Plain text as LaTeX: signs with a meaning of their own are escaped."""
    return text.translate(_TO_LATEX)


def write_tables(folder: Path, blocks: Mapping[str, Block]) -> None:
    """Writes all tables to `tables.md`, and each to NAME.csv and NAME.tex.

    Args:
      folder: where; it is created.
      blocks: each by its name.
    """
    write_text(folder / "tables.md", "\n".join(map(to_markdown, blocks.values())))
    for name, block in blocks.items():
        write_text(folder / f"{name}.csv", to_csv(block))
        write_text(folder / f"{name}.tex", to_latex(block, name))


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.interval}".strip()


def _row(texts: Sequence[str]) -> str:
    cells = []
    for text in texts:
        escaped = latex(text)
        # Behind the \\ of the row before, a bracket or a star would be read as its argument.
        cells.append(f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped)
    return " & ".join(cells) + r" \\"
