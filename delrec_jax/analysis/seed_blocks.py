"""Tables of a study over several teachers and seeds: means over seeds with their spread.

The spread is the sample standard deviation over seeds: how much a figure varies between training
runs. The paired tests account for the choice of test users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from delrec_jax.analysis.blocks import (
    NOTHING,
    Block,
    Cell,
    Line,
    Row,
    block_title,
    in_parts,
    users_note,
)
from delrec_jax.analysis.labels import system_label
from delrec_jax.evaluation.records import METRICS
from delrec_jax.evaluation.systems import system_order, untrained


@dataclass(frozen=True)
class SeedMean:
    """One system of one teacher: its metrics over the seeds it was run with."""

    system: str
    teacher: str  # "" for a system that is the same with every teacher
    label: str
    values: Mapping[str, float]  # metric -> mean over seeds
    spreads: Mapping[str, float]  # metric -> sample standard deviation; only where it is known
    seeds: int


def seed_mean_blocks(rows: Sequence[Row]) -> list[Block]:
    """One block per corpus, split and protocol, one line per system and teacher.

    Args:
      rows: rows of `metrics.json`, of several seeds and teachers.

    Returns:
      Headline tables first, then the others by part. In each, popularity comes first and only
      once, then the systems by teacher in alphabetical order, and the oracle last.
    """
    return in_parts(rows, _seed_block)


def seed_means(rows: Sequence[Row]) -> list[SeedMean]:
    """The means of one table (one corpus, split and protocol), in the order of its lines."""
    found: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        teacher = "" if untrained(row["system"]) else row["teacher"]
        metrics = found.setdefault((row["system"], teacher), {})
        metrics.setdefault(row["metric"], []).append(row)
    several = len({teacher for _, teacher in found if teacher}) > 1
    return [
        _mean(system, teacher, found[system, teacher], several_teachers=several)
        for system, teacher in sorted(found, key=_line_order)
    ]


def _line_order(key: tuple[str, str]) -> tuple[bool, str, tuple[int, ...]]:
    system, teacher = key
    return system == "oracle", teacher, system_order(system)


def _mean(
    system: str, teacher: str, metrics: Mapping[str, Sequence[Row]], *, several_teachers: bool
) -> SeedMean:
    by_seed = {metric: _values_by_seed(rows) for metric, rows in metrics.items()}
    # Untrained systems are the same under every seed; a spread of zero would look measured.
    known = {
        metric: values
        for metric, values in by_seed.items()
        if len(values) > 1 and not (untrained(system) and np.ptp(values) < 1e-12)
    }
    return SeedMean(
        system=system,
        teacher=teacher,
        label=system_label(system, teacher, teachers=several_teachers),
        values={metric: float(np.mean(values)) for metric, values in by_seed.items()},
        spreads={metric: float(np.std(values, ddof=1)) for metric, values in known.items()},
        seeds=max(len(values) for values in by_seed.values()),
    )


def _values_by_seed(rows: Sequence[Row]) -> list[float]:
    """One value per seed; a system that is the same for every teacher may have equal rows, which are averaged."""
    seeds = sorted({row["seed"] for row in rows})
    return [float(np.mean([row["value"] for row in rows if row["seed"] == one])) for one in seeds]


def _seed_block(rows: Sequence[Row]) -> Block:
    corpus, split, protocol = (rows[0][name] for name in ("corpus", "split", "protocol"))
    means = seed_means(rows)
    lines = [Line(name=one.system, label=one.label, cells=_cells(one)) for one in means]
    return Block(
        title=block_title(corpus, split=split, protocol=protocol),
        note=f"{users_note(rows)}; {_seeds_note(means)}.",
        columns=("System", *METRICS),
        lines=tuple(lines),
    )


def _cells(mean: SeedMean) -> tuple[Cell, ...]:
    cells = []
    for metric in METRICS:
        value, spread = mean.values.get(metric), mean.spreads.get(metric)
        text = NOTHING if value is None else f"{value:.4f}"
        cells.append(Cell(text, "" if spread is None else f"± {spread:.4f}"))
    return tuple(cells)


def _seeds_note(means: Sequence[SeedMean]) -> str:
    trained = [one for one in means if not untrained(one.system)] or means
    seeds = sorted({one.seeds for one in trained})
    if seeds == [1]:
        return "one seed"
    return (
        f"means over {'/'.join(map(str, seeds))} seeds, ± the sample standard deviation over "
        "seeds (not an interval over users)"
    )
