"""The page of a study or a comparison: one self-contained HTML file, from plain data."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from delrec_jax.analysis.blocks import Block
from delrec_jax.analysis.html import template
from delrec_jax.analysis.study_plots import Figure
from delrec_jax.files import write_text

_REPORT = Path("report") / "index.html"  # of a run's workdir


@dataclass(frozen=True)
class Link:
    """A run that the page names.

    Attributes:
      text: what the reader sees.
      address: relative to the page, quoted as in URLs; "" for a run that has nothing to show.
      note: behind it: its seed, or that it failed.
    """

    text: str
    address: str = ""
    note: str = ""


@dataclass(frozen=True)
class StudyPage:
    """Everything that the page shows.

    Attributes:
      title: of the page.
      question: what was asked.
      facts: shown below it: corpus, users, seeds, reference ...
      blocks: the tables.
      figures: from `analysis.study_plots`; each is also shown as a table.
      links: the runs.
      notes: what a reader must know to read it honestly.
      command: reproduces it; "" if nothing does.
    """

    title: str
    question: str
    facts: Mapping[str, str] = field(default_factory=dict)
    blocks: Sequence[Block] = ()
    figures: Sequence[Figure] = ()
    links: Sequence[Link] = ()
    notes: Sequence[str] = ()
    command: str = ""


def render_page(page: StudyPage) -> str:
    """The page as text: the same bytes for the same data."""
    # The figures are made here and are no text of users.
    # Made by matplotlib, which escapes what it draws.
    figures = [(Markup(figure.svg()), figure.block) for figure in page.figures]  # nosec B704
    return template("study.html.j2").render(page=page, figures=figures)


def write_page(path: Path, page: StudyPage) -> None:
    """Writes the page, completely or not at all."""
    write_text(path, render_page(page))


def run_link(workdir: Path, page: Path, text: str) -> Link:
    """A link to the report of a run, or to its workdir if it has none.

    Args:
      workdir: the run's.
      page: the file that the link is on.
      text: what the reader sees.
    """
    report = workdir / _REPORT
    target = report if report.is_file() else workdir
    relative = os.path.relpath(target.resolve(), page.parent.resolve())
    return Link(text, quote(Path(relative).as_posix()))
