"""What a study's systems recommend and what they cost, beyond accuracy: the arms' rows, and their tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from delrec_jax.analysis.blocks import NOTHING, Block, Cell, Line
from delrec_jax.evaluation.beyond_accuracy import TARGETS
from delrec_jax.results import names
from delrec_jax.results.beyond import COSTS, beyond_rows
from delrec_jax.studies.opening import Opened

_LISTS = {
    "coverage": "Coverage",
    "popularity": "Popularity",
    "novelty": "Novelty, bits",
    "jaccard": "As the teacher",
    "jaccard_of_seeds": "As with another seed",
}
_COSTS = {
    "trained_parameters": "Trained numbers",
    "seconds_per_example": "ms per example",
    "seconds_per_user": "ms per ranked user",
    "memory_gib": "Peak, GiB",
}
_THOUSANDTHS = ("seconds_per_example", "seconds_per_user")


def study_rows(opened: Opened) -> list[dict[str, Any]]:
    """The rows of the arms' systems, with their arm as `label`, and those of the systems beside them, without one.

    Args:
      opened: the study, of which the finished runs are read.
    """
    study, runs = opened.study, opened.done
    wanted = {(system, run.arm.name) for run in runs for system in study.systems_of(run.arm)}
    sources = [(run.arm.name, opened.records(run).parent) for run in runs]
    rows, context = beyond_rows(sources), (*study.context, TARGETS)
    found = [row for row in rows if (row["system"], row["label"]) in wanted]
    found += [
        row | {"label": ""}
        for row in rows
        if row["label"] == study.reference and row["system"] in context
    ]
    places = {arm.name: place for place, arm in enumerate(study.arms)}
    return sorted(found, key=lambda row: _place(row, places))


def _place(row: Mapping[str, Any], places: Mapping[str, int]) -> tuple[Any, ...]:
    """The order of tables, the arms of a system in the study's order, and last what users took."""
    system = row["system"]
    first = (system == TARGETS,) if system == TARGETS else (False, names.order(system))
    return first, places.get(row["label"], -1), row["teacher"]


def without_costs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose figures are the same whenever a study is run."""
    return [{key: value for key, value in row.items() if key not in COSTS} for row in rows]


def lists_block(rows: Sequence[Mapping[str, Any]]) -> Block | None:
    """What is recommended, by system and arm; None if no run recorded it."""
    return _block(
        rows,
        _LISTS,
        "The ten best unseen items of each user",
        "Coverage: share of all items that anyone is shown; popularity: mean percentile of the items by training count; "
        "novelty: mean of -log2 of their share of training interactions; the last columns: mean overlap (Jaccard) of a user's "
        "items with the teacher's, and between two seeds. Targets are the items that users took. Means over seeds, ± the "
        "sample standard deviation.",
    )


def costs_block(rows: Sequence[Mapping[str, Any]]) -> Block | None:
    """What systems cost, by system and arm; None if no run recorded it."""
    return _block(
        rows,
        _COSTS,
        "Cost",
        "Numbers that stages 1 and 2 (or the recommender) train; wall time per training example and per ranked user, without "
        "compilation; peak memory of the evaluation. The language model's own pre-training is not part of it. Times depend on "
        "what else the machine did.",
    )


def _block(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str, note: str
) -> Block | None:
    shown = {key: name for key, name in columns.items() if any(row.get(key) for row in rows)}
    if not shown:
        return None
    lines = [
        Line("", _title(row), tuple(_cell(row.get(key), key) for key in shown))
        for row in rows
        if any(row.get(key) for key in shown)
    ]
    return Block(title, note, ("System", *shown.values()), tuple(lines))


def _title(row: Mapping[str, Any]) -> str:
    if row["system"] == TARGETS:
        return "Targets"
    return names.title(names.labeled(row["system"], row["label"]), row["teacher"])


def _cell(found: Any, key: str) -> Cell:
    if found is None:
        return Cell(NOTHING)
    mean, spread = (found["mean"], found["sd"]) if isinstance(found, Mapping) else (found, None)
    if mean is None:
        return Cell(NOTHING)
    if key in _THOUSANDTHS:
        mean, spread = 1000 * mean, None if spread is None else 1000 * spread
    if key == "trained_parameters":
        return Cell(f"{mean:,.0f}")
    return Cell(f"{mean:.3f}", "" if spread is None else f"± {spread:.3f}")
