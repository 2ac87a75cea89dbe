"""`delrec baseline`: ranks only the conventional recommenders on the test part, under every protocol.

It shows how good a teacher is before any language model is trained.
"""

import time
from collections.abc import Iterable

import polars as pl

from delrec_jax.analysis import blocks, tables
from delrec_jax.distributed import on_main
from delrec_jax.evaluation import records
from delrec_jax.evaluation.ranking import rank_users
from delrec_jax.training.writers import say
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.protocols import Protocols
from delrec_jax.workdir.recommenders import first_cell, load_cell
from delrec_jax.workdir.workspace import Workspace


def baseline(ws: Workspace, data: Data) -> None:
    """Ranks popularity and the teacher, and writes records, `metrics.json` and `tables.md`."""
    protocols = Protocols(ws.experiment, data)
    protocols.add_rerank(load_cell(ws, data, first_cell(ws.experiment)).scores)
    users, found = len(protocols.users), []
    for name, system in recommenders.conventional_systems(ws, data, "test").items():
        started = time.monotonic()
        ranks = rank_users(
            system.score_users,
            protocols.rankers(full_scores=True),
            num_users=users,
            batch_size=min(ws.experiment.evaluate.batch_size, users),
            what=name,
            order=system.order,
        )
        found += protocols.records(ranks, system=name)
        say(f"  {name}: {users} users ranked in {time.monotonic() - started:.1f} s")
    on_main(lambda: _write(ws, pl.concat(found), data.split.warnings()))


def _write(ws: Workspace, table: pl.DataFrame, notes: Iterable[str]) -> None:
    folder = ws.folder("baseline")
    records.write_records(folder / "records.parquet", table)
    rows = tables.metrics_rows(table, seed=ws.experiment.seed)
    tables.write_metrics_json(folder / "metrics.json", rows)
    shown = blocks.result_blocks(rows)
    warnings = [f"WARNING: {warning}" for warning in notes]
    texts = [*map(blocks.to_markdown, shown), *warnings]
    (folder / "tables.md").write_text("\n\n".join(texts) + "\n")


def print_baseline(ws: Workspace, data: Data) -> None:
    """Prints the tables of a finished `baseline`, and the warnings of its split."""
    rows = tables.read_metrics_json(ws.folder("baseline") / "metrics.json")
    blocks.print_blocks(blocks.result_blocks(rows))
    for warning in data.split.warnings():
        say(f"WARNING: {warning}")
