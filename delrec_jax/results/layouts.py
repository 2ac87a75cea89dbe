"""Tables and lines of text from the summaries in `results/`: systems, comparisons, several names side by side, origin."""

from collections.abc import Mapping, Sequence
from typing import Any

from delrec_jax.analysis.blocks import (
    Block,
    Cell,
    Line,
    block_title,
    interval_text,
    to_markdown,
    users_note,
)
from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import METRICS
from delrec_jax.results import names

Summary = Mapping[str, Any]
Options = Mapping[str, str]

_FULL = {"protocol": "full", "group": "all"}
_ORIGIN_OF_SPREAD = "± the sample standard deviation over seeds"
_SHOWN_OF_HASH = 12


def systems_table(found: Mapping[str, Summary], options: Options) -> str:
    """Systems by metrics, for one name, protocol and group.

    Options: `protocol`, `group`, `metrics`, `interval` (the metrics with an interval over users), `systems` (patterns).
    """
    (summary,) = found.values()
    rows = _rows(found, options)
    metrics = _metrics(options, "metrics", METRICS)
    interval = _metrics(options, "interval", ("NDCG@10",))
    several = {len(row["seeds"]) for row in rows if row["seeds"]}
    note = users_note([_for_note(rows[0])]) + "; " + _seeds_text(several)
    lines = [
        Line(
            name="",
            label=names.title(row["system"], row["teacher"])
            + _selection(row)
            + _fewer(row, several),
            cells=tuple(_value(row[metric], interval=metric in interval) for metric in metrics),
        )
        for row in rows
    ]
    return to_markdown(
        Block(
            title=block_title(summary["corpus"], split=summary["split"], protocol=_where(rows[0])),
            note=note + ("; [95 % bootstrap interval over users]." if interval else "."),
            columns=("System", *metrics),
            lines=tuple(lines),
        )
    )


def comparisons_table(found: Mapping[str, Summary], options: Options) -> str:
    """Paired comparisons of one name; options: `protocol`, `group`, `metrics`, `systems`, `references` (patterns)."""
    ((name, summary),) = found.items()
    wanted = _FULL | {key: value for key, value in options.items() if key in _FULL}
    metrics = _metrics(options, "metrics", ("NDCG@10",))
    rows = [
        row
        for row in summary["comparisons"]
        if all(row[key] == value for key, value in wanted.items())
        and row["metric"] in metrics
        and _named(row["system"], row["teacher"], options.get("systems"))
        and _named(row["reference"], row["reference_teacher"], options.get("references"))
    ]
    if not rows:
        raise UserError(
            f"results/{name}: no comparison for {dict(options)}; give collect.py --compare=A,B"
        )
    tested = len(summary["comparisons"])
    return to_markdown(
        Block(
            title=block_title(summary["corpus"], split=summary["split"], protocol=_where(rows[0])),
            note=f"Paired over {rows[0]['users']} users, whose values are first averaged over seeds: difference with its 95 % "
            f"bootstrap interval, by seed, and p of the sign-flip test, plain and by Holm over the {tested} tests of "
            f"`results/{name}`.",
            columns=("Comparison", "Metric", "Difference [95 %]", "By seed", "p", "p (Holm)"),
            lines=tuple(_comparison(row) for row in rows),
        )
    )


def side_table(found: Mapping[str, Summary], options: Options) -> str:
    """Systems by names, one metric; options: `protocol`, `group`, `metric`, `systems` (patterns)."""
    (metric,) = _metrics(options, "metric", ("NDCG@10",))
    columns = {name: _rows({name: one}, options) for name, one in found.items()}
    values: dict[tuple[str, str], dict[str, Cell]] = {}
    for name, rows in columns.items():
        for row in rows:
            key = (row["system"], row["teacher"])
            values.setdefault(key, {})[name] = _value(row[metric])
    first = next(iter(columns.values()))[0]
    told = [
        f"{name}: {one['corpus']}, {one['split']}, {columns[name][0]['users']} users"
        for name, one in found.items()
    ]
    return to_markdown(
        Block(
            title=f"{metric} · {_where(first)}",
            note="; ".join(told) + f". Means over seeds, {_ORIGIN_OF_SPREAD}.",
            columns=("System", *columns),
            lines=tuple(
                Line(
                    "",
                    names.title(*key),
                    tuple(values[key].get(name, Cell("–")) for name in columns),
                )
                for key in sorted(values, key=lambda key: (names.order(key[0]), key[1]))
            ),
        )
    )


def origin_text(found: Mapping[str, Summary], options: Options) -> str:
    """Commits, machine and date of one name; its commands and hashes are folded."""
    ((name, summary),) = found.items()
    told = summary["provenance"]
    machine = told["machine"]
    where = machine.get("name") or (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB"
    )
    commits = ", ".join(
        one["commit"][:10] + (" with changes" if one["dirty"] else "") for one in told["commits"]
    )
    libraries = ", ".join(
        f"{library} {told['versions'][library]}" for library in ("python", "jax", "flax")
    )
    hashes = "\n".join(
        f"- {one['workdir']} `{one['sha256'][:_SHOWN_OF_HASH]}`" for one in told["sources"]
    )
    commands = "\n".join(told["commands"])
    return (
        f"`results/{name}/summary.json`, {told['date']}: commit {commits}; {where}; {libraries}.\n\n"
        f"<details><summary>Commands, and SHA-256 of the per-user ranks</summary>\n\n```\n{commands}\n```\n\n{hashes}\n\n"
        "</details>\n"
    )


def _rows(found: Mapping[str, Summary], options: Options) -> list[Mapping[str, Any]]:
    ((name, summary),) = found.items()
    wanted = _FULL | {key: value for key, value in options.items() if key in _FULL}
    rows = [
        row
        for row in summary["systems"]
        if all(row[key] == value for key, value in wanted.items())
        and _named(row["system"], row["teacher"], options.get("systems"))
    ]
    if not rows:
        there = dict.fromkeys((row["protocol"], row["group"]) for row in summary["systems"])
        raise UserError(
            f"results/{name}: no system for {dict(options)}; it has "
            + ", ".join(f"protocol={protocol} group={group}" for protocol, group in there)
        )
    return rows


def _named(system: str, teacher: str, patterns: str | None) -> bool:
    if patterns is None:
        return True
    return any(names.matches(system, teacher, one) for one in patterns.split(","))


def _metrics(options: Options, name: str, default: Sequence[str]) -> tuple[str, ...]:
    if name not in options:
        return tuple(default)
    chosen = tuple(one for one in options[name].split(",") if one)
    if unknown := [one for one in chosen if one not in METRICS]:
        raise UserError(f"{name}={options[name]}: unknown {unknown[0]!r}; use {', '.join(METRICS)}")
    return chosen


def _where(row: Mapping[str, Any]) -> str:
    part = "" if row["group"] == "all" else f"@{row['group']}"
    return f"{row['protocol']}{part}"


def _for_note(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"protocol": _where(row), "users": row["users"]}


def _fewer(row: Mapping[str, Any], several: set[int]) -> str:
    """How many seeds a row has, where not all trained systems have the same number."""
    count = len(row["seeds"])
    return f", {count} seed{'s' * (count > 1)}" if count and len(several) > 1 else ""


def _seeds_text(several: set[int]) -> str:
    if several <= {1}:
        return "one seed"
    return f"means over {'/'.join(map(str, sorted(several)))} seeds, {_ORIGIN_OF_SPREAD}"


def _selection(row: Mapping[str, Any]) -> str:
    """What a trained language system was tuned beside, and the steps that validation selected; step 0 is no training."""
    beside = sorted(set(row.get("beside", [])) - {""})
    text: str = f", beside the {beside[0]}" if beside else ""
    if "step" not in row:
        return text
    steps = "/".join(map(str, row["step"]))
    return text + (f" (not tuned: step {steps})" if not any(row["step"]) else f" (step {steps})")


def _value(found: Mapping[str, Any], *, interval: bool = False) -> Cell:
    spread = "" if found["sd_seeds"] is None else f"± {found['sd_seeds']:.4f}"
    ends = {"ci_low": found["low"], "ci_high": found["high"]}
    shown = interval_text(ends, digits=4) if interval else ""
    return Cell(f"{found['mean']:.4f}", f"{spread} {shown}".strip())


def _comparison(row: Mapping[str, Any]) -> Line:
    ours = names.title(row["system"], row["teacher"])
    theirs = names.title(row["reference"], row["reference_teacher"])
    ends = {"ci_low": row["low"], "ci_high": row["high"]}
    return Line(
        name="",
        label=f"{ours} vs {theirs}",
        cells=(
            Cell(row["metric"]),
            Cell(f"{row['difference']:+.4f}", interval_text(ends, signed=True, digits=4)),
            Cell(", ".join(f"{one:+.4f}" for one in row["by_seed"])),
            Cell(_p_text(row["p"])),
            Cell(_p_text(row["p_holm"])),
        ),
    )


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
