"""`delrec rank`: lists for a file of histories, a part at a time, so that an interrupted command goes on where it was.

OUTPUT/asked.json            the question: file, system, length of the lists, and what the run's stages are
OUTPUT/part-00000.parquet    lists of the first histories, and so on

Each of several processes makes the parts whose turn is its own, on its own devices; where these cannot hold the weights, all
processes score each part together, and the main one writes it. A part does not depend on which process made it.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from delrec_jax.distributed import as_main_sees, is_main, on_main, place_among, wait_for_all
from delrec_jax.errors import UserError, differences, one_line, without_panics
from delrec_jax.files import file_hash, read_object, refuse_foreign, whole
from delrec_jax.serving.recommender import Recommender
from delrec_jax.serving.titles import By
from delrec_jax.training.mesh import OwnMesh
from delrec_jax.training.writers import ProgressBar
from delrec_jax.workdir.json_files import write_json

PART = 65_536
"""Histories per part: what an interruption may lose, and what is in memory at once."""

_HISTORY, _CANDIDATES, _USER = "history", "candidates", "user"
_LISTED = {"rank", "item", "title", "score"}


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
    missing = _missing(output, rows)
    together = not isinstance(recommender.parts.experiment.mesh, OwnMesh)
    index, count = (0, 1) if together else place_among()
    if count > 1 and missing:
        # What is loaded when it is first asked is agreed on with the others: all ask now, as later some may have no part.
        recommender.rank_items([np.zeros(1, np.int32)], k=1, system=system)
    own = missing[index::count]
    with ProgressBar("rank", len(own)) as bar:
        for done, (number, file) in enumerate(own, start=1):
            try:
                table = _read(source, number * PART)
                found = _ranked(recommender, table, number * PART, k=k, system=system, by=by)
            except UserError as error:
                raise UserError(f"{source}, rows from {number * PART}: {error}") from error
            if not together or is_main():
                _write(file, found)
            bar.update(done, file.name)
    wait_for_all()


def _read(source: Path, first: int) -> pl.DataFrame:
    """The next part of the rows."""
    try:
        with without_panics():
            return pl.scan_parquet(source, glob=False).slice(first, PART).collect()
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise UserError(
            f"cannot be read ({one_line(error, most=200)}); write the file again"
        ) from error


def _check(source: Path) -> int:
    """Returns the number of rows of a file with the right columns."""
    if not source.is_file():
        raise UserError(f"--input={source}: there is no such file; give the path of a parquet file")
    try:
        with without_panics():
            schema = pl.read_parquet_schema(source)
            rows: int = pl.scan_parquet(source, glob=False).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise UserError(
            f"--input={source}: not a parquet file ({one_line(error, most=200)}); write the file again"
        ) from error
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
        before = read_object(file, missing="", remedy="give another --output, or empty this folder")
        changed = differences({key: (before.get(key), value) for key, value in asked.items()})
        if changed and any(output.glob("part-*.parquet")):
            raise UserError(
                f"--output={output} answers another question: {changed}; give another folder"
            )
    elif any(output.glob("part-*.parquet")):
        raise UserError(
            f"--output={output}: has lists, but no {file.name} that says whose; give another folder, or empty this one"
        )
    refuse_foreign(output, file.name, "rank")
    output.mkdir(parents=True, exist_ok=True)
    write_json(file, asked)


def _missing(output: Path, rows: int) -> list[tuple[int, Path]]:
    """The parts that the main process does not find whole, the same in all processes."""
    numbers = range(math.ceil(rows / PART))
    parts = [(number, output / f"part-{number:05d}.parquet") for number in numbers]
    return [(number, file) for number, file in parts if not as_main_sees(partial(_is_whole, file))]


def _is_whole(file: Path) -> bool:
    """Whether a part is there and can be read to its end; one that was damaged since is written again."""
    try:
        with without_panics():
            return file.exists() and set(pl.read_parquet(file).columns) >= _LISTED
    except (pl.exceptions.PolarsError, OSError, ValueError):
        return False


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
    with whole(file) as unfinished:
        found.write_parquet(unfinished)
