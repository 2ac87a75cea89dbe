"""Which rows of a summary a table shows: the options that all tables have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import METRICS
from delrec_jax.results import names

Summary = Mapping[str, Any]
Options = Mapping[str, str]

_FULL = {"protocol": "full", "group": "all"}


def wanted(options: Options) -> dict[str, str]:
    """The protocol and group of users that a table shows: `full` and all users by default."""
    return _FULL | {key: value for key, value in options.items() if key in _FULL}


def systems_of(found: Mapping[str, Summary], options: Options) -> list[Mapping[str, Any]]:
    """The rows of systems that a table shows; options: `protocol`, `group`, `systems` (patterns).

    Raises:
      UserError: there is none; says which protocols and groups there are.
    """
    ((name, summary),) = found.items()
    rows = [
        row
        for row in summary["systems"]
        if all(row[key] == value for key, value in wanted(options).items())
        and named(row["system"], row["teacher"], options.get("systems"))
    ]
    if not rows:
        there = dict.fromkeys((row["protocol"], row["group"]) for row in summary["systems"])
        raise UserError(
            f"results/{name}: no system for {dict(options)}; it has "
            + ", ".join(f"protocol={protocol} group={group}" for protocol, group in there)
        )
    return rows


def named(system: str, teacher: str, patterns: str | None) -> bool:
    """Whether one of the patterns, separated by commas, names a system; all do if there are none."""
    if patterns is None:
        return True
    return any(names.matches(system, teacher, one) for one in patterns.split(","))


def metrics_of(options: Options, name: str, default: Sequence[str]) -> tuple[str, ...]:
    """The metrics of an option.

    Raises:
      UserError: an unknown metric.
    """
    if name not in options:
        return tuple(default)
    chosen = tuple(one for one in options[name].split(",") if one)
    if unknown := [one for one in chosen if one not in METRICS]:
        raise UserError(f"{name}={options[name]}: unknown {unknown[0]!r}; use {', '.join(METRICS)}")
    return chosen


def where(row: Mapping[str, Any]) -> str:
    """A row's protocol, with its group of users if these are not all."""
    part = "" if row["group"] == "all" else f"@{row['group']}"
    return f"{row['protocol']}{part}"
