"""`delrec rank`: lists for a file of histories, a part at a time, so that an interrupted command goes on where it was.

OUTPUT/asked.json            the question: file, system, length of the lists, and what the run's stages are
OUTPUT/part-00000.parquet    lists of the first histories, and so on

Over several devices or processes, each part is scored by all of them, and the main process writes it.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from delrec_jax.distributed import as_main_sees, on_main, wait_for_all
from delrec_jax.errors import UserError, differences
from delrec_jax.files import file_hash, whole
from delrec_jax.serving.recommender import Recommender
from delrec_jax.serving.titles import By
from delrec_jax.training.writers import ProgressBar
from delrec_jax.workdir.workspace import read_json, write_json

PART = 65_536
"""Histories per part: what an interruption may lose, and what is in memory at once."""

_HISTORY, _CANDIDATES, _USER = "history", "candidates", "user"


def rank_file(
    recommender: Recommender,
    source: Path,
    output: Path,
    *,
    k: int,
    system: str,
    by: By,
) -> None:
    """Ranks items after each history of a file.

    Args:
      recommender: whom to ask.
      source: a parquet file with the column `history`, lists of ids or titles, oldest first; optionally `candidates`, lists to
        rank, and `user`, which is copied.
      output: the folder to write; parts that it has already are kept.
      k: length of the lists.
      system: one of `recommender.systems`; "" = its main one.
      by: whether items are named by `id` or by `title`.

    Raises:
      UserError: the file cannot be read or asks for unknown items, or the folder answers another question.
    """
    rows = _check(source)
    system = system or recommender.main
    asked = {
        "input": file_hash(source),
        "rows": rows,
        "system": system,
        "k": k,
        "by": by,
        "run": dict(recommender.parts.identity),
    }
    on_main(lambda: _begin(output, asked))
    with ProgressBar("rank", math.ceil(rows / PART)) as bar:
        for number, file in _missing(output, rows):
            table = pl.scan_parquet(source).slice(number * PART, PART).collect()
            try:
                found = _ranked(recommender, table, number * PART, k=k, system=system, by=by)
            except UserError as error:
                raise UserError(f"{source}, rows from {number * PART}: {error}") from error
            on_main(lambda file=file, found=found: _write(file, found))
            bar.update(number + 1, file.name)
    wait_for_all()


def _check(source: Path) -> int:
    """Returns the number of rows of a file with the right columns."""
    if not source.is_file():
        raise UserError(f"--input={source}: there is no such file")
    try:
        schema = pl.read_parquet_schema(source)
        rows: int = pl.scan_parquet(source).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"--input={source}: not a parquet file ({error})") from error
    lists = (pl.List, pl.Array)
    if not isinstance(schema.get(_HISTORY), lists):
        raise UserError(
            f"--input={source}: has the columns {', '.join(schema)}; it needs {_HISTORY!r}, a list of items per row"
        )
    if _CANDIDATES in schema and not isinstance(schema[_CANDIDATES], lists):
        raise UserError(
            f"--input={source}: column {_CANDIDATES!r} must hold a list of items per row"
        )
    return rows


def _begin(output: Path, asked: dict[str, Any]) -> None:
    file = output / "asked.json"
    if file.exists():
        before = read_json(file)
        changed = differences({key: (before.get(key), value) for key, value in asked.items()})
        if changed:
            raise UserError(
                f"--output={output} answers another question: {changed}; give another folder"
            )
    output.mkdir(parents=True, exist_ok=True)
    write_json(file, asked)


def _missing(output: Path, rows: int) -> Iterator[tuple[int, Path]]:
    for number in range(math.ceil(rows / PART)):
        file = output / f"part-{number:05d}.parquet"
        if not as_main_sees(file.exists):
            yield number, file


def _ranked(
    recommender: Recommender, table: pl.DataFrame, first: int, *, k: int, system: str, by: By
) -> pl.DataFrame:
    """The lists of some rows; `history` is the row's place in the file, of which `first` are before these."""
    candidates = table[_CANDIDATES].to_list() if _CANDIDATES in table.columns else None
    found = recommender.rank(table[_HISTORY].to_list(), candidates, k=k, system=system, by=by)
    if _USER not in table.columns:
        return found.with_columns(pl.col("history") + first)
    users = table[_USER].gather(found["history"])
    return found.drop("history").insert_column(0, users)


def _write(file: Path, found: pl.DataFrame) -> None:
    with whole(file) as partial:
        found.write_parquet(partial)
