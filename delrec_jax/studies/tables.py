"""What a study leaves beside its runs: `summary.json`, its tables as Markdown, CSV and LaTeX, `costs.json`, and a page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from delrec_jax.analysis.blocks import NOTHING, Block, Cell, Line, to_markdown
from delrec_jax.files import write_text
from delrec_jax.results import names
from delrec_jax.results.comparison_layouts import comparisons_block
from delrec_jax.results.exports import write_tables
from delrec_jax.results.layouts import intervals_block, systems_block
from delrec_jax.results.study_page import Link, StudyPage, run_link, write_page
from delrec_jax.results.summary import as_text
from delrec_jax.studies.beyond import costs_block, lists_block
from delrec_jax.studies.figures import figures
from delrec_jax.studies.opening import Opened

_METRICS = "HR@1,HR@10,NDCG@10"
_ON_TERMINAL = ("systems", "comparisons", "validation")
_NORMAL_95, _POWER_80 = 1.96, 2.80  # 1.96 + 0.84 standard errors are seen in four of five samples


def write(opened: Opened, summary: Mapping[str, Any], costs: Sequence[Mapping[str, Any]]) -> str:
    """Writes the files; returns the main tables, for the terminal.

    What depends on the speed of the machine is apart from all else (`costs.json`): the other files are the same, byte for byte,
    however often the study was interrupted.

    Args:
      opened: the study.
      summary: what `summary.summarise` made of it.
      costs: rows of `beyond.study_rows`.
    """
    write_text(opened.root / "summary.json", as_text(summary))
    write_text(opened.root / "costs.json", json.dumps(costs, indent=1) + "\n")
    found, cost = blocks(opened, summary), costs_block(costs)
    write_tables(opened.root, found)
    write_text(opened.root / "tables.md", _text(opened, summary, found.values()))
    _write_page(opened, summary, costs, [*found.values(), *([cost] if cost else [])])
    shown = [found[name] for name in _ON_TERMINAL if name in found]
    return f"{_text(opened, summary, shown)}\nall tables, figures and runs: {opened.root / 'index.html'}"


def _text(opened: Opened, summary: Mapping[str, Any], shown: Iterable[Block]) -> str:
    """The question, tables, and what is not finished."""
    parts = [opened.study.question, *map(to_markdown, shown)]
    if unfinished := summary["study"]["unfinished"]:
        parts.append(f"Not finished: {', '.join(unfinished)}.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def blocks(opened: Opened, summary: Mapping[str, Any]) -> dict[str, Block]:
    """Systems, their intervals, comparisons with the reference, what validation says, and what is recommended; by file name."""
    study, told = opened.study, summary["study"]
    named = {opened.root.name: summary}
    here = {"protocol": study.protocol}
    found = {
        "systems": systems_block(named, here | {"metrics": _METRICS, "interval": study.metric})
    }
    if len(study.seeds) > 1:
        found["intervals"] = intervals_block(named, here | {"metric": study.metric})
    if summary["comparisons"]:
        options = here | {"metrics": study.metric}
        found["comparisons"] = comparisons_block(
            named, options, place="this study", more_note=_power(summary["comparisons"])
        )
    if study.by_users:
        found["users"] = groups_block(summary, study.metric, study.protocol)
    if told["validation"]:
        found["validation"] = _validation(told["validation"], study.metric, told["selected"])
    lists = lists_block(summary["beyond"])
    return found | ({"lists": lists} if lists else {})


def groups_block(summary: Mapping[str, Any], metric: str, protocol: str) -> Block:
    """One metric of each system by groups of users, a column each.

    Args:
      summary: with rows of groups named `history ...` and `count ...` (`results.user_groups`).
      metric: that is shown.
      protocol: of the rows.
    """
    rows = [row for row in summary["systems"] if row["protocol"] == protocol]
    users = {row["group"]: row["users"] for row in rows if " " in row["group"]}
    values: dict[str, dict[str, Cell]] = {}
    for row in rows:
        if row["group"] in users:
            title = names.title(row["system"], row["teacher"])
            values.setdefault(title, {})[row["group"]] = Cell(f"{row[metric]['mean']:.4f}")
    few = [f"{one['group']} ({one['users']})" for one in summary["left_out"] if " " in one["group"]]
    note = "By the items in a user's history, and by how often the target occurs in training. Means over users and seeds."
    return Block(
        title=f"{metric} by groups of users",
        note=note
        + (f" Too few users to be shown: {', '.join(dict.fromkeys(few))}." if few else ""),
        columns=("System", *(f"{name} ({number} users)" for name, number in users.items())),
        lines=tuple(
            Line("", title, tuple(found.get(name, Cell(NOTHING)) for name in users))
            for title, found in values.items()
        ),
    )


def _power(rows: Sequence[Mapping[str, Any]]) -> str:
    """The smallest difference that the tests can see, from the widths of their intervals."""
    errors = sorted((row["high"] - row["low"]) / (2 * _NORMAL_95) for row in rows)
    seen = _POWER_80 * errors[len(errors) // 2]
    return (
        f"A single test at 5 % sees a true difference of {seen:.4f} with a power of 80 % (median over these tests, before "
        "Holm's correction)."
    )


def _write_page(
    opened: Opened,
    summary: Mapping[str, Any],
    costs: Sequence[Mapping[str, Any]],
    found: Sequence[Block],
) -> None:
    study, told, path = opened.study, summary["study"], opened.root / "index.html"
    unfinished = set(told["unfinished"])
    links = [
        Link(run.name, "", "not finished")
        if run.name in unfinished
        else run_link(opened.workdirs[run.name].root, path, run.name)
        for run in opened.runs
    ]
    page = StudyPage(
        title=f"{opened.root.name}: {summary['corpus']}",
        question=study.question,
        facts={
            "Corpus": summary["corpus"],
            "Split": summary["split"],
            "Test users": str(summary["users"]),
            "Seeds": ", ".join(map(str, study.seeds)),
            "Reference": study.reference,
            **({"Chosen by validation": told["selected"]} if told["selected"] else {}),
        },
        blocks=found,
        figures=figures(study, summary, costs),
        links=links,
    )
    write_page(path, page)


def _validation(values: Mapping[str, list[float]], metric: str, selected: str) -> Block:
    lines = [
        Line(
            "",
            arm,
            (Cell(f"{sum(found) / len(found):.4f}"), Cell(" ".join(f"{v:.4f}" for v in found))),
        )
        for arm, found in values.items()
    ]
    chosen = f" It chooses `{selected}`." if selected else ""
    return Block(
        title=f"{metric} on the validation users",
        note=f"Of the step that validation selected in each run.{chosen}",
        columns=("Arm", "Mean", "By seed"),
        lines=tuple(lines),
    )
