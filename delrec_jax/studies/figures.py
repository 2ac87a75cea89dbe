"""The figures of a study: each system by the values of an axis, by two axes, and by what it costs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from delrec_jax.analysis.axis_plots import ByAxis, Curve, HeatMap, Value
from delrec_jax.analysis.study_plots import CostAgainstQuality, Figure
from delrec_jax.results import names
from delrec_jax.results.comparing import bars, measured
from delrec_jax.studies.study import Study

Row = Mapping[str, Any]
_COST = "seconds_per_user"


def figures(study: Study, summary: Mapping[str, Any], costs: Sequence[Row]) -> tuple[Figure, ...]:
    """All figures that the arms allow: curves for one axis, maps for two that some arm crosses, else bars; and costs, if known.

    Args:
      study: the arms and their places.
      summary: of its finished runs.
      costs: rows of `studies.beyond.study_rows`.
    """
    rows = [
        row
        for row in summary["systems"]
        if row["protocol"] == study.protocol and row["group"] == "all"
    ]
    axes = {axis for arm in study.arms for axis in arm.at}
    found: list[Figure]
    if len(axes) == 1:
        found = [_curves(study, rows, axes.pop())]
    elif len(axes) == 2 and any(axes <= arm.at.keys() for arm in study.arms):
        found = [_map(study, rows, system) for system in study.systems]
    else:
        found = [bars(rows, study.metric, study.protocol)]
    cost = _cost(study, rows, costs)
    return (*found, cost) if cost else tuple(found)


def _of_arms(rows: Iterable[Row], system: str) -> dict[str, Row]:
    """The rows of a system by arm; of several teachers the first."""
    found: dict[str, Row] = {}
    for row in rows:
        base, _, arm = row["system"].partition("/")
        if base == system and arm:
            found.setdefault(arm, row)
    return found


def _values(study: Study, axis: str) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(arm.at[axis] for arm in study.arms if axis in arm.at))


def _curves(study: Study, rows: Sequence[Row], axis: str) -> ByAxis:
    values = _values(study, axis)
    curves = []
    for system in study.systems:
        by_arm = _of_arms(rows, system)
        points = {
            arm.at[axis]: measured(by_arm[arm.name], study.metric)
            for arm in study.arms
            if axis in arm.at and arm.name in by_arm
        }
        label = names.title(system, "")
        curves.append(Curve(label, tuple(points.get(value) for value in values)))
    return ByAxis(f"{study.metric} by {axis}", axis, study.metric, values, tuple(curves))


def _map(study: Study, rows: Sequence[Row], system: str) -> HeatMap:
    first, second = dict.fromkeys(axis for arm in study.arms for axis in arm.at)
    by_arm = _of_arms(rows, system)
    cells = {
        (arm.at[first], arm.at[second]): by_arm[arm.name][study.metric]["mean"]
        for arm in study.arms
        if {first, second} <= arm.at.keys() and arm.name in by_arm
    }
    row_values, column_values = _values(study, first), _values(study, second)
    grid = tuple(tuple(cells.get((row, column)) for column in column_values) for row in row_values)
    title = f"{study.metric} of {names.title(system, '')}"
    return HeatMap(title, study.metric, first, second, row_values, column_values, grid)


def _cost(study: Study, rows: Sequence[Row], costs: Sequence[Row]) -> CostAgainstQuality | None:
    known = {
        (names.labeled(row["system"], row["label"]), row["teacher"]): row[_COST]["mean"]
        for row in costs
        if (row.get(_COST) or {}).get("mean")
    }
    points = tuple(
        (1000 * known[row["system"], row["teacher"]], measured(row, study.metric))
        for row in rows
        if (row["system"], row["teacher"]) in known
    )
    title, cost = f"{study.metric} against cost", "milliseconds per ranked user"
    return CostAgainstQuality(title, cost, study.metric, points) if points else None
