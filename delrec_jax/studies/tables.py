"""The tables of a study, as files beside its runs: `summary.json`, `tables.md`, `tables.csv`, `tables.tex`, `costs.json`."""

import json
from collections.abc import Mapping
from typing import Any

from delrec_jax.analysis.blocks import Block, Cell, Line, to_markdown
from delrec_jax.files import write_text
from delrec_jax.results.comparison_layouts import comparisons_block
from delrec_jax.results.layouts import intervals_block, systems_block
from delrec_jax.results.summary import as_text
from delrec_jax.studies.beyond import costs_block, lists_block, study_rows
from delrec_jax.studies.opening import Opened

_METRICS = "HR@1,HR@10,NDCG@10"


def write(opened: Opened, summary: Mapping[str, Any]) -> str:
    """Writes the files; returns the tables for the terminal.

    What depends on the speed of the machine is apart from all else (`costs.json`): the other files are the same, byte for byte,
    however often the study was interrupted.

    Args:
      opened: the study.
      summary: what `summary.summarise` made of it.
    """
    write_text(opened.root / "summary.json", as_text(summary))
    done = [run for run in opened.runs if opened.finished(run)]
    costs = study_rows(opened, done)
    write_text(opened.root / "costs.json", json.dumps(costs, indent=1) + "\n")
    text = as_markdown(opened, summary)
    write_text(opened.root / "tables.md", text)
    cost = costs_block(costs)
    return text + (f"\n{to_markdown(cost)}\n" if cost else "")


def as_markdown(opened: Opened, summary: Mapping[str, Any]) -> str:
    """The question, the tables, and what is not finished."""
    parts = [opened.study.question, *map(to_markdown, blocks(opened, summary))]
    if unfinished := summary["study"]["unfinished"]:
        parts.append(f"Not finished: {', '.join(unfinished)}.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def blocks(opened: Opened, summary: Mapping[str, Any]) -> list[Block]:
    """Systems, their intervals, comparisons with the reference, what validation says, and what is recommended."""
    study, told = opened.study, summary["study"]
    named = {opened.root.name: summary}
    here = {"protocol": study.protocol}
    found = [systems_block(named, here | {"metrics": _METRICS, "interval": study.metric})]
    if len(study.seeds) > 1:
        found.append(intervals_block(named, here | {"metric": study.metric}))
    if summary["comparisons"]:
        found.append(comparisons_block(named, here | {"metrics": study.metric}, place="this study"))
    if told["validation"]:
        found.append(_validation(told["validation"], study.metric, told["selected"]))
    lists = lists_block(summary["beyond"])
    return [*found, lists] if lists else found


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
