"""The tables of a study, as files beside its runs: `summary.json`, `tables.md`."""

from collections.abc import Mapping
from typing import Any

from delrec_jax.files import write_text
from delrec_jax.results.layouts import comparisons_table, systems_table
from delrec_jax.results.summary import as_text
from delrec_jax.studies.opening import Opened


def write(opened: Opened, summary: Mapping[str, Any]) -> str:
    """Writes the files; returns the tables for the terminal.

    Args:
      opened: the study.
      summary: what `summary.summarise` made of it.
    """
    write_text(opened.root / "summary.json", as_text(summary))
    text = tables(opened, summary)
    write_text(opened.root / "tables.md", text)
    return text


def tables(opened: Opened, summary: Mapping[str, Any]) -> str:
    """The question, the systems and their comparisons, what validation says, and what is not finished, in Markdown."""
    study, told = opened.study, summary["study"]
    options = {"protocol": study.protocol}
    parts = [study.question, systems_table({opened.root.name: summary}, options)]
    if summary["comparisons"]:
        options |= {"metrics": study.metric}
        parts.append(comparisons_table({opened.root.name: summary}, options))
    if told["validation"]:
        parts.append(_validation(told["validation"], study.metric, told["selected"]))
    if told["unfinished"]:
        parts.append(f"Not finished: {', '.join(told['unfinished'])}.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _validation(values: Mapping[str, list[float]], metric: str, selected: str) -> str:
    lines = [
        f"Validation {metric} by arm and seed" + (f"; chosen: {selected}." if selected else ".")
    ]
    lines += ["", "| Arm | mean | by seed |", "| --- | --- | --- |"]
    for arm, found in values.items():
        seeds = " ".join(f"{value:.4f}" for value in found)
        lines.append(f"| {arm} | {sum(found) / len(found):.4f} | {seeds} |")
    return "\n".join(lines)
