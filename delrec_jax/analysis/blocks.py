"""Tables laid out for reading: a `Block` can be shown in the terminal, as markdown and as HTML."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from delrec_jax.analysis.labels import selection_text, system_label
from delrec_jax.evaluation.records import METRICS
from delrec_jax.evaluation.systems import system_order
from delrec_jax.printable import printable, terminal

Row = Mapping[str, Any]

SHARE_COLUMN = "of oracle"
WITH_INTERVAL = ("HR@1", "NDCG@10")
PARTS = ("headline", "popularity", "cold")

NOTHING = "–"
"""The text of a value that does not exist."""

_FILE_WIDTH = 140
_TAG = re.compile("<(?=[a-zA-Z/!?])")  # with which HTML begins: "p < 0.01" is none

_BOLD = ("delrec", "teacher_augmented")
_POPULARITY = ("@head", "@tail")
_PROTOCOL_ORDER = ("full", "full_with_seen", "sampled", "rerank")
_PROTOCOL_NAMES = {
    "full": "ranked in the whole catalogue, seen items excluded",
    "full_with_seen": "ranked in the whole catalogue, seen items kept",
    "sampled": "ranked among the target and random unseen items",
    "rerank": "ranked among the teacher's best candidates (target may be absent: a miss)",
}
_TARGETS = {
    "head": "; targets among the most popular fifth of the items",
    "tail": "; targets seen in training, but not among the most popular fifth of the items",
    "cold": "; targets never seen in training",
    "warm": "; targets seen in training",
}


class Cell(NamedTuple):
    """One cell: its text, and an interval that is shown less prominently."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class Line:
    """One row of a block; `name` is the identifier by which it is styled."""

    name: str  # "" if the line is not styled
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Block:
    """A table with its title and a note on how to read it."""

    title: str
    note: str
    columns: tuple[str, ...]  # the first is the label's
    lines: tuple[Line, ...]
    part: str = "headline"  # one of PARTS


def result_blocks(rows: Sequence[Row]) -> list[Block]:
    """One block per corpus, split and protocol: headline blocks first, then the others by part.

    Args:
      rows: rows of `metrics.json`.
    """
    oracle = {
        (row["corpus"], row["split"], row["protocol"], row["seed"]): row["value"]
        for row in rows
        if row["system"] == "oracle" and row["metric"] == "HR@1"
    }
    return in_parts(rows, lambda group: _result_block(group, oracle))


def in_parts(rows: Sequence[Row], lay_out: Callable[[Sequence[Row]], Block]) -> list[Block]:
    """Applies `lay_out` to the rows of each corpus, split and protocol; blocks in the page's order.

    Tables of a protocol's head, tail and cold users belong to the part "popularity", those of
    its cold and warm users to the part "cold".
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["corpus"], row["split"], row["protocol"]), []).append(row)
    by_popularity = any(protocol.endswith(_POPULARITY) for _, _, protocol in groups)
    some_users = "popularity" if by_popularity else "cold"
    blocks = []
    for (_, _, protocol), group in sorted(groups.items(), key=_order):
        part = some_users if "@" in protocol else "headline"
        blocks.append(replace(lay_out(group), part=part))
    return sorted(blocks, key=lambda block: PARTS.index(block.part))


def whole_protocols(rows: Sequence[Row]) -> list[str]:
    """Protocols over all test users (not a part of them), in the order of the tables."""
    names = {row["protocol"] for row in rows if "@" not in row["protocol"]}
    return sorted(names, key=_protocol_order)


def agreement_block(agreement: Sequence[Row]) -> Block:
    """Agreement with the teacher, one line per prompt, one column per measure.

    Args:
      agreement: {"prompt", "measure", "value", "ci_low", "ci_high", "users"} per row.
    """
    measures = list(dict.fromkeys(row["measure"] for row in agreement))
    found = {(row["prompt"], row["measure"]): row for row in agreement}
    users = sorted({row["users"] for row in agreement})
    lines = [
        Line(
            name=prompt,
            label=prompt,
            cells=tuple(_measured(found.get((prompt, measure))) for measure in measures),
        )
        for prompt in dict.fromkeys(row["prompt"] for row in agreement)
    ]
    return Block(
        title="Agreement with the teacher",
        note=f"{' / '.join(map(str, users))} held-out users, over the stated candidates. A gain "
        "over no prompt is no evidence: the control is the prompt of the shuffled teacher.",
        columns=("Prompt", *measures),
        lines=tuple(lines),
    )


def to_rich(block: Block) -> Table:
    """The block for the terminal."""
    title = Text.assemble((printable(block.title), "bold"), "\n", (printable(block.note), "dim"))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for place, name in enumerate(block.columns):
        table.add_column(
            Text(printable(name)), justify="left" if place == 0 else "right", overflow="fold"
        )
    for line in block.lines:
        # Text, not str: rich would read the brackets of an interval as markup.
        # No spaces inside it: a narrow terminal breaks the line before an interval, not within it.
        intervals = [cell.interval.replace(", ", ",").replace("± ", "±") for cell in line.cells]
        cells = [
            Text(printable(f"{cell.text} {interval}".strip()))
            for cell, interval in zip(line.cells, intervals, strict=True)
        ]
        table.add_row(
            Text(printable(line.label)), *cells, style="bold" if line.name in _BOLD else None
        )
    return table


def print_blocks(blocks: Sequence[Block], *, console: Console | None = None) -> None:
    """Prints blocks one below another; in a file or a pipe, wide enough for one line per row."""
    console = console or terminal()
    if not console.is_terminal:
        console.width = max(console.width, _FILE_WIDTH)
    for block in blocks:
        console.print(to_rich(block))
        console.print()


def to_markdown(block: Block) -> str:
    """The block as a markdown table with title and note, for the docs; what a cell holds does not end the cell."""
    rule = ["---"] + ["---:"] * (len(block.columns) - 1)
    rows = [block.columns, rule]
    for line in block.lines:
        texts = [f"{cell.text} {cell.interval}".strip() for cell in line.cells]
        rows.append([line.label, *texts])
    table = "\n".join("| " + " | ".join(map(_in_cell, row)) + " |" for row in rows)
    return f"**{block.title}**\n\n{block.note}\n\n{table}\n"


def _in_cell(text: str) -> str:
    """A text that stays in its cell of a markdown table, and is no HTML."""
    return _TAG.sub("&lt;", " ".join(printable(text).split()).replace("|", r"\|"))


def _order(item: tuple[tuple[str, str, str], Any]) -> tuple[str, str, tuple[int, str, int]]:
    """Sort key: corpus, split and protocol."""
    corpus, split, protocol = item[0]
    return corpus, split, _protocol_order(protocol)


def _protocol_order(protocol: str) -> tuple[int, str, int]:
    """Sort key: full, sampled, rerank, then others by name; then by the part of the users."""
    family = _family(protocol)
    known = family in _PROTOCOL_ORDER
    place = _PROTOCOL_ORDER.index(family) if known else len(_PROTOCOL_ORDER)
    name, _, users = protocol.partition("@")
    return place, name, ["", *_TARGETS].index(users)


def _family(protocol: str) -> str:
    return protocol.partition("@")[0].partition("-")[0]


def _result_block(rows: Sequence[Row], oracle: Mapping[tuple[str, str, str, int], float]) -> Block:
    corpus, split, protocol = (rows[0][name] for name in ("corpus", "split", "protocol"))
    bounds = {
        seed: value
        for (its_corpus, its_split, its_protocol, seed), value in oracle.items()
        if (its_corpus, its_split, its_protocol) == (corpus, split, protocol)
    }
    systems: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in rows:
        key = (row["system"], row["teacher"], row["seed"])
        systems.setdefault(key, {})[row["metric"]] = row
    several_seeds = len({seed for _, _, seed in systems}) > 1
    # The oracle has no teacher: its empty name does not count as another one.
    several_teachers = len({teacher for _, teacher, _ in systems if teacher}) > 1
    lines = []
    for key in sorted(systems, key=lambda key: (system_order(key[0]), *key[1:])):
        label = system_label(*key[:2], teachers=several_teachers)
        label += selection_text(next(iter(systems[key].values())))
        label += f", seed {key[2]}" if several_seeds else ""
        cells = _metric_cells(systems[key])
        if bounds:
            cells += (_share(systems[key], bounds.get(key[2])),)
        lines.append(Line(name=key[0], label=label, cells=cells))
    return Block(
        title=block_title(corpus, split=split, protocol=protocol),
        note=f"{users_note(rows)}; [95 % bootstrap interval]."
        + (f" {SHARE_COLUMN!r}: share of the oracle's HR@1." if bounds else ""),
        columns=("System", *METRICS, *((SHARE_COLUMN,) if bounds else ())),
        lines=tuple(lines),
    )


def block_title(corpus: str, *, split: str, protocol: str) -> str:
    """The title of a table."""
    return f"{corpus} · {split} · {protocol}"


def users_note(rows: Sequence[Row]) -> str:
    """The number of users in a table, how their targets were ranked, and which targets these are."""
    protocol = rows[0]["protocol"]
    users = "/".join(str(count) for count in sorted({row["users"] for row in rows}))
    text = _PROTOCOL_NAMES.get(_family(protocol), f"protocol {protocol}")
    return f"{users} test users, {text}" + _TARGETS.get(protocol.partition("@")[2], "")


def _metric_cells(values: Mapping[str, Row]) -> tuple[Cell, ...]:
    cells = []
    for metric in METRICS:
        row = values.get(metric)
        interval = interval_text(row) if row and metric in WITH_INTERVAL else ""
        cells.append(Cell(f"{row['value']:.3f}", interval) if row else Cell(NOTHING))
    return tuple(cells)


def _share(values: Mapping[str, Row], bound: float | None) -> Cell:
    if not bound or "HR@1" not in values:
        return Cell(NOTHING)
    return Cell(f"{100 * values['HR@1']['value'] / bound:.0f} %")


def _measured(row: Row | None) -> Cell:
    return Cell(f"{row['value']:.3f}", interval_text(row)) if row else Cell(NOTHING)


def interval_text(row: Row, *, signed: bool = False, digits: int = 3) -> str:
    """A row's interval in brackets."""
    form = f"+.{digits}f" if signed else f".{digits}f"
    return f"[{row['ci_low']:{form}}, {row['ci_high']:{form}}]"
