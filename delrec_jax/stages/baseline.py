"""`delrec baseline`: ranks only the conventional recommenders on the test part, under every protocol.

It shows how good a teacher is before any language model is trained.
"""

from collections.abc import Iterable
from dataclasses import asdict

import polars as pl

from delrec_jax.analysis import blocks, tables
from delrec_jax.analysis.beyond_blocks import beyond_blocks
from delrec_jax.analysis.comparison_blocks import comparison_block
from delrec_jax.data.corpus_warnings import corpus_warnings
from delrec_jax.distributed import on_main
from delrec_jax.evaluation.beyond_accuracy import read_rows
from delrec_jax.evaluation.significance import compare_family, standard_pairs
from delrec_jax.files import write_text
from delrec_jax.training.writers import say
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.cost import trained_systems
from delrec_jax.workdir.evaluation import Evaluation
from delrec_jax.workdir.json_files import read_json, write_json
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.ranked_so_far import RankedSoFar
from delrec_jax.workdir.recommenders import first_cell, list_source
from delrec_jax.workdir.workspace import Workspace

_METRIC = "NDCG@10"


def baseline(ws: Workspace, data: Data) -> None:
    """Ranks the baselines, the teacher and their hybrids; writes records, `metrics.json`, `comparisons.json`, `tables.md`."""
    run = Evaluation(ws.experiment, data, RankedSoFar(ws.folder("baseline"), ws.saved))
    run.protocols.add_rerank(list_source(ws, data, first_cell(ws.experiment)))
    systems = recommenders.conventional_systems(ws, data)
    for name, system in systems.items():
        trained = trained_systems(ws).get(name, ())
        run.rank_system(name, system, trained=trained)
    run.rank_hybrids(systems)
    on_main(lambda: _write(ws, run, corpus_warnings(data.corpus, data.split)))


def _write(ws: Workspace, run: Evaluation, notes: Iterable[str]) -> None:
    folder, seed = ws.folder("baseline"), ws.experiment.seed
    run.write(folder, root=ws.root)
    table = pl.concat(run.tables)
    rows = tables.metrics_rows(table, seed=seed)
    tables.write_metrics_json(folder / "metrics.json", rows)
    compared = [asdict(one) for one in compare_family(table, _pairs(run), _METRIC, seed=seed)]
    write_json(folder / "comparisons.json", compared)
    beyond = beyond_blocks(read_rows(folder) or [])
    shown = [*blocks.result_blocks(rows), comparison_block(compared), *beyond]
    warnings = [f"WARNING: {warning}" for warning in notes]
    texts = [*map(blocks.to_markdown, shown), *warnings]
    write_text(folder / "tables.md", "\n\n".join(texts) + "\n")


def _pairs(run: Evaluation) -> list[tuple[str, str]]:
    """Every system against the teacher, and every hybrid against its best part."""
    systems = dict.fromkeys(table["system"][0] for table in run.tables)
    pairs = [*standard_pairs(list(systems)), *run.hybrid_pairs]
    return list(dict.fromkeys(pairs))


def print_baseline(ws: Workspace, data: Data) -> None:
    """Prints the tables of a finished `baseline`, and the warnings of its split."""
    folder = ws.folder("baseline")
    rows = tables.read_metrics_json(folder / "metrics.json")
    compared = read_json(folder / "comparisons.json")
    blocks.print_blocks([*blocks.result_blocks(rows), comparison_block(compared)])
    for warning in corpus_warnings(data.corpus, data.split):
        say(f"WARNING: {warning}")
