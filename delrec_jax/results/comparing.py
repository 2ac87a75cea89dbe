"""Finished runs side by side: one summary of them, tables, and a page.

Runs are sources with labels (`sources`): those of one label are the seeds of one arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from delrec_jax.analysis.blocks import Block, to_markdown
from delrec_jax.analysis.study_plots import Bars, Measured
from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import METRICS
from delrec_jax.evaluation.records import PART_OF_USERS
from delrec_jax.files import file_hash, write_text
from delrec_jax.results import layouts, names
from delrec_jax.results.aggregate import FEWEST, aggregates
from delrec_jax.results.comparison_layouts import comparisons_block
from delrec_jax.results.exports import write_tables
from delrec_jax.results.pairs import Pair, identical, tests
from delrec_jax.results.references import System, chosen, pairs_with, shared
from delrec_jax.results.selecting import Summary
from delrec_jax.results.sources import Key, Source, SystemRecords, gather
from delrec_jax.results.study_page import StudyPage, run_link, write_page
from delrec_jax.results.summary import as_text

_PLACE = "this comparison"


@dataclass(frozen=True)
class Asked:
    """What is compared.

    Attributes:
      systems: patterns of systems, separated by commas, with or without labels: `delrec,hybrid*,teacher@sasrec`.
      reference: a label or a system (`references.pairs_with`); "" for the first label if there are several, else for the
        teacher, if it is shown.
      metric: of the tests and intervals.
      protocol: as in the records; `full@head` for a group of users.
    """

    systems: str = "*"
    reference: str = ""
    metric: str = "NDCG@10"
    protocol: str = "full"

    @property
    def place(self) -> dict[str, str]:
        """Protocol and group of users, as the options of tables name them."""
        protocol, _, group = self.protocol.partition("@")
        return {"protocol": protocol, "group": group or "all"}


def summarized(found: Sequence[Source], asked: Asked) -> dict[str, Any]:
    """The summary of runs: `results/NAME/summary.json` without `provenance` and `hybrids`, with `reference` and `runs`.

    Raises:
      UserError: runs that do not belong together, an unknown metric, protocol, group, system or reference, too few users.
    """
    protocol, group = _checked_place(asked)
    labels = list(dict.fromkeys(source.label for source in found))
    cells = shared(_under(gather(found), protocol), labels)
    there = list(dict.fromkeys((key.system, key.teacher) for key in cells))
    systems = chosen(there, asked.systems)
    if not systems:
        raise UserError(f"--systems={asked.systems}: names no system; leave it out to have all")
    reference = _reference(asked, systems, labels)
    pairs: list[Pair] = []
    if reference is not None:
        pairs = pairs_with(systems, reference, there=there, labels=labels, protocol=protocol)
    if asked.reference and not pairs:
        raise UserError(
            f"--reference={asked.reference}: nothing of --systems={asked.systems} can be tested against it (what has the same "
            "ranks under every label is one system); choose other systems, or another reference"
        )
    # Shared stages give arms the same system: its tests would only make those of the others stricter.
    tested = [pair for pair in pairs if not identical(cells, pair)]
    shown = {*systems, *(pair.theirs for pair in pairs)}
    own = {key: cell for key, cell in cells.items() if (key.system, key.teacher) in shown}
    counted = aggregates(own, only=group)
    if not counted["systems"]:
        few = sum(row["users"] for row in counted["left_out"])
        raise UserError(
            f"--protocol={asked.protocol}: '{group}' has {few} users, fewer than {FEWEST}; choose another group"
        )
    first = next(iter(own.values()))
    return {
        "corpus": first.run["corpus"],
        "split": first.run["split"],
        "users": len(first.users),
        "reference": reference if pairs else None,
        "runs": [_told(source) for source in found],
        **counted,
        "identical_pairs": len(pairs) - len(tested),
        "comparisons": tests(own, [(pair, group) for pair in tested], metrics=(asked.metric,)),
    }


def blocks(summary: Summary, asked: Asked) -> dict[str, Block]:
    """The tables by the name of their file: intervals of the metric, all metrics, and the tests, if there are any."""
    found = {_PLACE: summary}
    made = {
        "intervals": layouts.intervals_block(found, {**asked.place, "metric": asked.metric}),
        "systems": layouts.systems_block(found, {**asked.place, "interval": asked.metric}),
    }
    if summary["comparisons"]:
        same = summary["identical_pairs"]
        note = "Only seeds that both systems have enter."
        if same:
            note += f" Not tested: {same} pairs with the same ranks for every user and seed."
        options = {**asked.place, "metrics": asked.metric}
        block = comparisons_block(found, options, place=_PLACE, more_note=note)
        made["tests"] = replace(block, title=f"Paired tests · {block.title}")
    return made


def as_markdown(summary: Summary, asked: Asked) -> str:
    """All tables, for the terminal."""
    return "\n".join(map(to_markdown, blocks(summary, asked).values()))


def write(
    folder: Path, summary: Summary, asked: Asked, found: Sequence[Source], *, command: str = ""
) -> None:
    """Writes `summary.json`, `tables.md`, a CSV and a LaTeX file of each table, and `index.html`.

    Args:
      folder: where; it is created.
      summary: from `summarized`.
      asked: what it was made for.
      found: the runs that it was made of.
      command: shown on the page.
    """
    made = blocks(summary, asked)
    write_text(folder / "summary.json", as_text(summary))
    write_tables(folder, made)
    page = folder / "index.html"
    workdirs = dict.fromkeys((source.label, source.workdir) for source in found)
    runs = f"{len(workdirs)} runs" if len(workdirs) > 1 else "systems of a run"
    links = [
        run_link(workdir, page, f"{label}: {workdir.resolve().name}".removeprefix(": "))
        for label, workdir in workdirs
    ]
    write_page(
        page,
        StudyPage(
            title=f"{summary['corpus']}: {runs} compared",
            question=f"How do their systems differ in {asked.metric}, protocol {asked.protocol}?",
            facts=_facts(summary),
            blocks=tuple(made.values()),
            figures=(bars(summary["systems"], asked.metric, asked.protocol),),
            links=links,
            command=command,
        ),
    )


def _checked_place(asked: Asked) -> tuple[str, str]:
    """The protocol and the group of users."""
    if asked.metric not in METRICS:
        raise UserError(f"--metric={asked.metric}: unknown; use one of {', '.join(METRICS)}")
    place = asked.place
    groups = ("all", *PART_OF_USERS)
    if place["group"] not in groups:
        raise UserError(
            f"--protocol={asked.protocol}: no group of users '{place['group']}'; use one of {', '.join(groups)}"
        )
    return place["protocol"], place["group"]


def _under(cells: Mapping[Key, SystemRecords], protocol: str) -> dict[Key, SystemRecords]:
    own = {key: cell for key, cell in cells.items() if key.protocol == protocol}
    if not own:
        there = ", ".join(dict.fromkeys(key.protocol for key in cells))
        raise UserError(f"--protocol={protocol}: the runs were not ranked so; they have {there}")
    return own


def _reference(asked: Asked, systems: Sequence[System], labels: Sequence[str]) -> str | None:
    """What the systems are tested against; None for nothing."""
    if asked.reference:
        return asked.reference
    if len(labels) > 1:
        return labels[0]
    shows_teacher = any(names.base(system) == "teacher" for system, _ in systems)
    return "teacher" if shows_teacher else None


def _told(source: Source) -> dict[str, str]:
    return {
        "workdir": source.workdir.resolve().name,
        "label": source.label,
        "file": f"{source.path.parent.name}/{source.path.name}",
        "sha256": file_hash(source.path),
    }


def _facts(summary: Summary) -> dict[str, str]:
    reference = summary["reference"]
    return {
        "Corpus": summary["corpus"],
        "Split": summary["split"],
        "Test users": str(summary["users"]),
        "Reference": "none" if reference is None else reference or "the runs without a label",
        "Labels": ", ".join(dict.fromkeys(run["label"] or "(none)" for run in summary["runs"])),
    }


def measured(row: Mapping[str, Any], metric: str) -> Measured:
    """The mean of a row of a summary's systems with its interval over users."""
    one = row[metric]
    return Measured(
        names.title(row["system"], row["teacher"]), one["mean"], one["low"], one["high"]
    )


def bars(rows: Sequence[Mapping[str, Any]], metric: str, protocol: str) -> Bars:
    """One metric of each row as a bar."""
    return Bars(
        f"{metric} · {protocol}",
        f"{metric}, 95 % interval over users",
        tuple(measured(row, metric) for row in rows),
    )
