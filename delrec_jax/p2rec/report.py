"""`delrec report` for P2Rec: categories, embedding maps, and every recommender with and without augmentation."""

from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from delrec_jax.analysis import blocks, tables, terminal
from delrec_jax.analysis.beyond_blocks import beyond_blocks
from delrec_jax.analysis.comparison_blocks import comparison_block
from delrec_jax.analysis.embedding_map import (
    EmbeddingMap,
    chance_purity,
    map_points,
    neighbour_purity,
)
from delrec_jax.analysis.labels import SYSTEM_LABELS
from delrec_jax.analysis.report import Curve, ReportData, pretraining_curve, write_report
from delrec_jax.analysis.seed_blocks import seed_mean_blocks
from delrec_jax.config import Experiment, to_dict
from delrec_jax.config.p2rec import ENSEMBLE, SOLVED
from delrec_jax.data.corpus_warnings import corpus_warnings
from delrec_jax.distributed import on_main
from delrec_jax.evaluation import records
from delrec_jax.evaluation.beyond_accuracy import NOT_RECORDED, read_rows
from delrec_jax.files import write_text
from delrec_jax.p2rec import files, first_screen
from delrec_jax.p2rec.cells import RANDOM, SHUFFLED, UNTUNED, seeds
from delrec_jax.p2rec.comparison import compare_augmentations
from delrec_jax.p2rec.stage_blocks import category_block, category_lines, validation_block
from delrec_jax.teachers.registry import display_name
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.base_model import described_model
from delrec_jax.workdir.closed_forms import left_out
from delrec_jax.workdir.json_files import read_json, write_json
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN, Cell
from delrec_jax.workdir.workspace import Workspace

_METRIC = "NDCG@10"
_MAPPED = 1500  # items per map: t-SNE of all would take minutes on a large catalogue


def report(ws: Workspace, data: Data) -> None:
    """Writes metrics.json, headline.json, tables.md and index.html of `report/`; prints the main table."""
    on_main(lambda: _write(ws, data))


def _write(ws: Workspace, data: Data) -> None:
    folder, seed = ws.folder("report"), ws.experiment.seed
    table = records.read_records(ws.folder("evaluate") / "records.parquet")
    rows = _rows(ws, table)
    # Cold items that were negatives are never ranked well: testing them would only cost the other tests power.
    cold = table["cold"].any() and not ws.experiment.teacher.cold_negatives
    parts = ("all", "head", "tail", *(("cold",) if cold else ()))
    compared = [
        asdict(one) for one in compare_augmentations(table, _METRIC, parts=parts, seed=seed)
    ]
    tables.write_metrics_json(folder / "metrics.json", rows)
    page = _page(ws, data, table, rows, compared)
    if page.headline:
        write_json(folder / "headline.json", page.headline.as_json())
    write_report(folder / "index.html", page)
    shown = [
        *seed_mean_blocks(rows),
        *([comparison_block(compared)] if compared else []),
        *beyond_blocks(page.beyond),
        category_block(read_json(ws.folder("parse") / "parse.json")),
        validation_block(read_json(ws.folder("augment") / "augment.json")),
    ]
    texts = [*map(blocks.to_markdown, shown), *([] if page.beyond else [NOT_RECORDED])]
    write_text(folder / "tables.md", "\n\n".join(texts) + "\n")
    terminal.print_report(shown, [], folder / "index.html")
    ws.watch.trackers.results(tables.main_values(rows, "full"))


def _rows(ws: Workspace, table: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of every seed; those of the oracle, which do not depend on the seed, come with the first."""
    path, first = ws.folder("evaluate") / "expected.parquet", ws.experiment.seed
    found = []
    for seed in seeds(ws.experiment):
        expected = records.read_expected(path) if seed == first and path.exists() else None
        found += tables.metrics_rows(
            table.filter(seed=seed), expected, seed=first, by_popularity=True
        )
    return found


def _page(
    ws: Workspace,
    data: Data,
    table: pl.DataFrame,
    rows: list[dict[str, Any]],
    compared: list[dict[str, Any]],
) -> ReportData:
    config = ws.experiment
    facts = read_json(ws.folder("prepare") / "statistics.json")
    first = config.seed
    log = []
    for stage in ("pretrain", "teach", "parse", "augment"):
        for path in sorted(ws.folder(stage).rglob("metrics.jsonl")):
            log += tables.read_log(path)
    beyond = read_rows(ws.folder("evaluate")) or []
    _, described = load_tree(files.seed_folder(ws, first) / "categories.safetensors")
    return ReportData(
        title=f"P2Rec on {data.corpus.name}",
        summary={
            "corpus": f"{facts['users']} users, {facts['items']} items, {facts['interactions']} interactions",
            "split": f"{facts['split']}, {facts['test_users']} test users, {facts['cold_items']} cold items",
            "categories": f"{config.parse.categories}, from {display_name(config.teacher.name)}, popularity "
            + config.parse.popularity,
            "language model": described_model(ws),
            "augmentation": f"{config.augment.way}, {config.augment.reduce}",
            "seeds": ", ".join(map(str, seeds(config))),
        },
        metrics=rows,
        command="delrec run --config=FILE --workdir=DIR (with config.json below)",
        config=to_dict(config),
        comparisons=compared,
        beyond=beyond,
        log=log,
        curves=_curves(log, config),
        categories=described["categories"],
        maps=_maps(ws, data),
        over_seeds=True,
        headline=first_screen.headline(ws, table, rows, compared),
        users=first_screen.shown_users(ws, data, table),
        notes=[
            *_notes(config, data),
            *left_out(ws),
            *category_lines(read_json(ws.folder("parse") / "parse.json")),
            *([] if beyond else [NOT_RECORDED]),
        ],
    )


def _curves(log: list[dict[str, Any]], config: Experiment) -> list[Curve]:
    first = config.seed
    parsing = {f"preference/seed-{seed}": f"seed {seed}" for seed in seeds(config)}
    wanted = [
        pretraining_curve(log),
        Curve("valid/squared_error", "Parsing: squared error, held-out users", parsing),
        Curve("valid/top_category", "Parsing: top-category accuracy, held-out users", parsing),
    ]
    for name in config.augment.teachers:
        runs = {
            f"augment/{name}/seed-{first}/{system}": SYSTEM_LABELS[system]
            for system in (PLAIN, AUGMENTED, UNTUNED, SHUFFLED, RANDOM)
        }
        if Cell(name, first, PLAIN) == recommenders.first_cell(config):
            runs = {"teacher": SYSTEM_LABELS[PLAIN], **runs}
        title = f"{display_name(name)}: validation NDCG@10, seed {first}"
        wanted.append(Curve("valid/NDCG@10", title, runs))
    logged = {(row["run"], key) for row in log for key in row}
    return [
        curve for curve in wanted if any((run, curve.key) in logged for run in curve.runs or {})
    ]


def _maps(ws: Workspace, data: Data) -> list[EmbeddingMap]:
    """Maps of the teacher's item vectors and of the language model's before and after parsing, by the teacher's categories."""
    seed, ids = ws.experiment.seed, data.corpus.catalogue.ids
    categories = files.load_categories(ws, seed).of_item
    spaces = {
        f"{display_name(ws.experiment.teacher.name)}'s item vectors": recommenders.taught_vectors(
            ws, data.num_items
        )
    }
    for title, system in (("LM before parsing", UNTUNED), ("LM after parsing", AUGMENTED)):
        path = files.embeddings_path(ws, system, seed)
        if path.exists():
            spaces[title] = files.load_embeddings(path, ids=ids)
    return [_map(title, np.asarray(vectors), categories, seed) for title, vectors in spaces.items()]


def _map(title: str, vectors: np.ndarray, categories: np.ndarray, seed: int) -> EmbeddingMap:
    shown, points = map_points(vectors, seed=seed, most=_MAPPED)
    purity, chance = neighbour_purity(vectors, categories), chance_purity(categories)
    return EmbeddingMap(
        title=title,
        points=points,
        categories=categories[shown],
        note=f"{100 * purity:.0f} % of an item's 10 nearest neighbors share its category ({100 * chance:.0f} % by chance)",
    )


def _notes(config: Experiment, data: Data) -> list[str]:
    notes = [
        "Values are means over the seeds; ± is the standard deviation over seeds. Tests average a user's metric over the seeds "
        "and pair users; they say nothing about seeds that were not run.",
        "All networks of one name have the same training rows, budget and selection (validation NDCG@10 of full ranking).",
        "What counts is the gain over the controls: embeddings of the untuned language model (would any text embedding do?), "
        "the tuned model's embeddings of other items' titles (would those of any title do?) and random vectors with the "
        "spectrum of the tuned model's embeddings (would any vectors do?).",
        "Head: targets among the most popular fifth of the items; tail: the other targets seen in training; cold: targets "
        "never seen in training.",
        "Maps are t-SNE pictures: distances between groups mean nothing; the categories are the teacher's.",
        *corpus_warnings(data.corpus, data.split),
    ]
    if SOLVED in config.augment.teachers:
        notes.append(
            "EASE is solved, not trained. With embeddings it is CEASE: its weights explain the embeddings of the items beside "
            "the users; how much they count is chosen by validation for each system, and may be nothing."
        )
    if config.augment.way == ENSEMBLE:
        notes.append(
            "Ensemble: every augmented network is the plain one of the same seed and one that reads vectors alone, "
            "trained apart; their scores are standardized over the catalogue for each user, and added."
        )
    if config.parse.lm == "frozen":
        notes.append(
            "parse.lm=frozen: the language model was not tuned, so the tuned and the untuned embeddings are the same."
        )
    if data.world is not None:
        notes.append("The storefront is generated: no figure here is a result on real data.")
    return notes
