"""The summary of finished workdirs, `summary.json`: aggregates alone, from which all tables are written.

The per-user ranks stay in the workdirs, and the summary has their hashes: corpora allow nothing row by row. Only the ranks of
a generated storefront may be stored beside it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from delrec_jax.errors import UserError
from delrec_jax.files import whole, write_text
from delrec_jax.results.aggregate import FEWEST, aggregates
from delrec_jax.results.pairs import comparisons, parse
from delrec_jax.results.provenance import provenance
from delrec_jax.results.sources import PER_USER, Key, Source, SystemRecords, gather, sources
from delrec_jax.workdir.json_files import read_settings

BEST_PARTS = "hybrids"  # as a pair: each hybrid against the best of its parts

# Lists of rows that are told apart by these keys, and not by users.
_LISTS = ("systems", "by_seed", "left_out", "hybrids", "comparisons", "beyond")
_NAMED = (
    *("protocol", "group", "metric", "system", "teacher", "seed", "workdir"),
    *("reference", "reference_teacher", "label"),
)


def collect(
    folder: Path,
    workdirs: Sequence[str],
    *,
    compare: Sequence[str] = (),
    commands: Sequence[str] = (),
    protocols: Sequence[str] = ("full",),
    metrics: Sequence[str] = ("NDCG@10",),
    machine: str = "",
    rows: bool = False,
) -> Path:
    """Writes `summary.json`; returns its path.

    Args:
      folder: `results/NAME`.
      workdirs: `WORKDIR` or `LABEL=WORKDIR`.
      compare: pairs `A,B`, or "hybrids".
      commands: what made the workdirs; if empty, run.py's journal says it.
      protocols: those of the pairs.
      metrics: those of the pairs.
      machine: where they were made, if not here.
      rows: also store the per-user ranks of a storefront.

    Raises:
      UserError: workdirs that are not finished or do not belong together, an unknown pair, or per-user rows of a corpus that
        is not generated.
    """
    found = sources(workdirs)
    cells = gather(found)
    first = next(iter(cells.values()))
    if rows:
        _refuse_rows_of_others(found, first.run["corpus"])
    patterns = [parse(text) for text in compare if text != BEST_PARTS]
    if BEST_PARTS in compare:
        patterns += best_parts(found)
    summary = {
        "corpus": first.run["corpus"],
        "split": first.run["split"],
        "users": len(first.users),
        "provenance": provenance(found, commands, machine),
        **aggregates(cells),
        "hybrids": [one for source in found for one in source.hybrids],
        "comparisons": comparisons(cells, patterns, protocols=protocols, metrics=metrics),
    }
    refuse_user_rows(summary)
    path = folder / "summary.json"
    write_text(path, as_text(summary))
    if rows:
        _write_rows(folder / "ranks.parquet", cells)
    return path


def best_parts(found: Iterable[Source]) -> list[tuple[str, str]]:
    """Each hybrid with that of its systems that was best by validation in any of the sources.

    Raises:
      UserError: no source has hybrids.
    """
    pairs = []
    for source in found:
        suffix = f"/{source.label}" if source.label else ""
        pairs += [(one["system"], one["best_part"] + suffix) for one in source.hybrids]
    if not pairs:
        raise UserError("--compare=hybrids: no workdir has hybrids; leave the flag out")
    return list(dict.fromkeys(pairs))


def refuse_user_rows(summary: Mapping[str, Any]) -> None:
    """Refuses anything that could hold a value per user.

    Rows are told apart by system, seed and group, never by user; every other list must be shorter than `FEWEST`, or than the
    number of users.

    Raises:
      UserError: a key of the rank records, two rows with one name, or a list as long as the users.
    """
    for name in (name for name in _LISTS if name in summary):
        keys = [tuple(str(row.get(key)) for key in _NAMED) for row in summary[name]]
        if len(set(keys)) < len(keys):
            raise UserError(
                f"{name}: two rows of one system, seed and group; rows per user are not published"
            )
    users = summary["users"]
    for name, value in summary.items():
        for one in value if name in _LISTS else [value]:
            _refuse_inside(one, name, users)


def _refuse_inside(value: Any, where: str, users: int) -> None:
    if isinstance(value, Mapping):
        if wrong := set(value) & set(PER_USER):
            raise UserError(
                f"{where}: has {', '.join(sorted(wrong))}, which belongs to single users"
            )
        for name, one in value.items():
            _refuse_inside(one, f"{where}.{name}", users)
    elif isinstance(value, list | tuple):
        if len(value) >= max(users, FEWEST):
            raise UserError(
                f"{where}: a list of {len(value)} values for {users} users; only aggregates are published"
            )
        for one in value:
            _refuse_inside(one, where, users)


def _refuse_rows_of_others(found: Iterable[Source], corpus: str) -> None:
    """Both the records and the config must say that the corpus was generated: a file may have any name."""
    configs = [read_settings(source.workdir / "config.json") for source in found]
    kinds = {config["data"]["corpus"] for config in configs}
    if {corpus, *kinds} != {"storefront"}:
        raise UserError(
            f"--rows: the corpus is '{corpus}' (data.corpus={', '.join(sorted(kinds))}); per-user ranks are stored of the "
            "generated storefront alone, as the terms of other corpora forbid it; leave --rows out"
        )


def _write_rows(path: Path, cells: Mapping[Key, SystemRecords]) -> None:
    table = pl.concat(cell.records for cell in cells.values())
    with whole(path) as partial:
        table.write_parquet(partial)


def as_text(summary: Mapping[str, Any]) -> str:
    """The summary as JSON with one line per row, so that a change can be read as a difference of lines.

    Numbers have six digits after the point: more than any table shows, and half of the bytes.
    """
    parts = []
    for name, value in rounded(summary).items():
        if isinstance(value, list) and value:
            lines = ",\n".join(json.dumps(row, allow_nan=False) for row in value)
            parts.append(f'"{name}": [\n{lines}\n]')
        else:
            indent = 1 if isinstance(value, dict) else None
            parts.append(f'"{name}": {json.dumps(value, indent=indent, allow_nan=False)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def rounded(value: Any) -> Any:
    """A tree of lists and dictionaries with its floats rounded to six digits."""
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value
