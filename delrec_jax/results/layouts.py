"""Tables and lines of text from the summaries in `results/`: systems, intervals, several names side by side, origin."""

from collections.abc import Mapping
from typing import Any

from delrec_jax.analysis.blocks import (
    NOTHING,
    Block,
    Cell,
    Line,
    block_title,
    interval_text,
    users_note,
)
from delrec_jax.evaluation.metrics import METRICS
from delrec_jax.results import names
from delrec_jax.results.notes import (
    OVER_SEEDS,
    seeds_interval_note,
    seeds_interval_text,
)
from delrec_jax.results.selecting import Options, Summary, metrics_of, systems_of, where

_ORIGIN_OF_SPREAD = "± the sample standard deviation over seeds"
_SHOWN_OF_HASH = 12


def systems_block(found: Mapping[str, Summary], options: Options) -> Block:
    """Systems by metrics, for one name, protocol and group.

    Options: `protocol`, `group`, `metrics`, `interval` (the metrics with an interval over users), `systems` (patterns).
    """
    (summary,) = found.values()
    rows = systems_of(found, options)
    metrics = metrics_of(options, "metrics", METRICS)
    interval = metrics_of(options, "interval", ("NDCG@10",))
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
    return Block(
        title=block_title(summary["corpus"], split=summary["split"], protocol=where(rows[0])),
        note=note + ("; [95 % bootstrap interval over users]." if interval else "."),
        columns=("System", *metrics),
        lines=tuple(lines),
    )


def intervals_block(found: Mapping[str, Summary], options: Options) -> Block:
    """One metric of each system: over seeds, over users, and over both together.

    Options: `protocol`, `group`, `metric`, `systems` (patterns).
    """
    (summary,) = found.values()
    rows = systems_of(found, options)
    (metric,) = metrics_of(options, "metric", ("NDCG@10",))
    counts = sorted({len(row["seeds"]) for row in rows if "low_seeds" in row[metric]})
    note = f"{users_note([_for_note(rows[0])])}. sd: the sample standard deviation over seeds. "
    note += "[users]: the 95 % bootstrap interval over users of each user's mean over seeds."
    return Block(
        title=f"{metric} · "
        + block_title(summary["corpus"], split=summary["split"], protocol=where(rows[0])),
        note=f"{note} {seeds_interval_note(counts)}".strip(),
        columns=("System", "Seeds", "Mean", "sd", "[users]", OVER_SEEDS),
        lines=tuple(_intervals(row, metric) for row in rows),
    )


def _intervals(row: Mapping[str, Any], metric: str) -> Line:
    found = row[metric]
    ends = {"ci_low": found["low"], "ci_high": found["high"]}
    cells = (
        Cell(str(len(row["seeds"]) or NOTHING)),
        Cell(f"{found['mean']:.4f}"),
        Cell(NOTHING if found["sd_seeds"] is None else f"{found['sd_seeds']:.4f}"),
        Cell(interval_text(ends, digits=4)),
        Cell(seeds_interval_text(found)),
    )
    return Line("", names.title(row["system"], row["teacher"]) + _selection(row), cells)


def side_block(found: Mapping[str, Summary], options: Options) -> Block:
    """Systems by names, one metric; options: `protocol`, `group`, `metric`, `systems` (patterns)."""
    (metric,) = metrics_of(options, "metric", ("NDCG@10",))
    columns = {name: systems_of({name: one}, options) for name, one in found.items()}
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
    return Block(
        title=f"{metric} · {where(first)}",
        note="; ".join(told) + f". Means over seeds, {_ORIGIN_OF_SPREAD}.",
        columns=("System", *columns),
        lines=tuple(
            Line(
                "",
                names.title(*key),
                tuple(values[key].get(name, Cell(NOTHING)) for name in columns),
            )
            for key in sorted(values, key=lambda key: (names.order(key[0]), key[1]))
        ),
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


def _for_note(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"protocol": where(row), "users": row["users"]}


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
