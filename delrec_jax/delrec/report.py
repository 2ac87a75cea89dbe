"""`delrec report` for DELRec: turns records into `metrics.json`, tables on the terminal, and one self-contained page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from delrec_jax.analysis import blocks, tables, terminal
from delrec_jax.analysis.beyond_blocks import beyond_blocks
from delrec_jax.analysis.report import (
    Curve,
    ReportData,
    pretraining_curve,
    write_report,
)
from delrec_jax.config import Experiment, to_dict
from delrec_jax.data.corpus_warnings import corpus_warnings
from delrec_jax.delrec import files, first_screen, systems
from delrec_jax.distributed import on_main
from delrec_jax.evaluation import records, significance
from delrec_jax.evaluation.beyond_accuracy import NOT_RECORDED, read_rows
from delrec_jax.files import write_text
from delrec_jax.teachers.registry import display_name
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.workdir import base_model
from delrec_jax.workdir.closed_forms import left_out
from delrec_jax.workdir.json_files import read_json, write_json
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace

_METRIC = "HR@1"


def report(ws: Workspace, data: Data, language: Language) -> None:
    """Writes metrics.json, headline.json, tables.md and index.html of `report/`; prints the main table and the agreement."""
    table = records.read_records(ws.folder("evaluate") / "records.parquet")
    expected = ws.folder("evaluate") / "expected.parquet"
    rows = tables.metrics_rows(
        table,
        records.read_expected(expected) if expected.exists() else None,
        seed=ws.experiment.seed,
    )
    # All processes take part, as this asks the language model.
    page = _report_data(ws, data, language, table, rows)
    on_main(lambda: _write(ws, rows, page))


def _write(ws: Workspace, rows: list[dict[str, Any]], page: ReportData) -> None:
    folder = ws.folder("report")
    tables.write_metrics_json(folder / "metrics.json", rows)
    if page.headline:
        write_json(folder / "headline.json", page.headline.as_json())
    write_report(folder / "index.html", page)
    shown = [*blocks.result_blocks(rows), *beyond_blocks(page.beyond)]
    texts = [*map(blocks.to_markdown, shown), *([] if page.beyond else [NOT_RECORDED])]
    write_text(folder / "tables.md", "\n\n".join(texts) + "\n")
    agreement = [blocks.agreement_block(page.agreement)] if page.agreement else []
    protocol = _main_protocol(rows, ws.experiment)
    note = terminal.seen_and_unseen(rows, protocol)
    terminal.print_report(shown, agreement, folder / "index.html", note)
    ws.watch.trackers.results(tables.main_values(rows, protocol))


def _main_protocol(rows: Sequence[Mapping[str, Any]], config: Experiment) -> str:
    """The protocol of the main table: language systems whose texts list the candidates have no ranks in the full catalogue."""
    whole = any((row["system"], row["protocol"]) == ("delrec", "full") for row in rows)
    return "full" if whole else f"sampled-{config.candidates.num}"


def _report_data(
    ws: Workspace,
    data: Data,
    language: Language,
    table: pl.DataFrame,
    rows: list[dict[str, Any]],
) -> ReportData:
    facts = read_json(ws.folder("prepare") / "statistics.json")
    config = ws.experiment
    log = []
    for stage in ("pretrain", "teach", "distill", "tune"):
        for path in sorted(ws.folder(stage).glob("*/metrics.jsonl")):
            log += tables.read_log(path)
    hybrids = read_json(ws.folder("evaluate") / "hybrids.json")
    pairs = significance.standard_pairs(table["system"].unique(maintain_order=True).to_list())
    pairs += [(one["system"], one["best_part"]) for one in hybrids]
    pairs = list(dict.fromkeys(pairs))
    protocol = _main_protocol(rows, config)
    beyond = read_rows(ws.folder("evaluate")) or []
    compared = significance.compare_family(
        table, pairs, _METRIC, protocol=protocol, seed=config.seed
    )
    headline = first_screen.headline(ws, table, rows, protocol=protocol)
    return ReportData(
        title=f"DELRec on {data.corpus.name}",
        summary={
            "corpus": f"{facts['users']} users, {facts['items']} items, {facts['interactions']} interactions",
            "split": f"{facts['split']}, {facts['test_users']} test users, {facts['cold_items']} cold items",
            "teacher": display_name(config.teacher.name),
            "language model": base_model.described_model(ws),
            "stage 2": _tuning(config),
            "seed": str(config.seed),
        },
        metrics=rows,
        command="delrec run --config=FILE --workdir=DIR (with config.json below)",
        config=to_dict(config),
        comparisons=[*(asdict(one) for one in compared), *headline.tests],
        agreement=read_json(ws.folder("distill") / "agreement.json"),
        beyond=beyond,
        log=log,
        curves=_curves(log),
        adapter_ranks=_adapter_ranks(ws),
        headline=headline,
        users=first_screen.shown_users(ws, data, table, protocol=protocol),
        examples=first_screen.examples(ws, data, language),
        notes=[
            *filter(None, [terminal.seen_and_unseen(rows, protocol)]),
            *notes(config, data),
            *left_out(ws),
            *([] if beyond else [NOT_RECORDED]),
        ],
    )


def _tuning(config: Experiment) -> str:
    tuned = f"AdaLoRA, {config.tune.loop.steps} steps at most"
    if not config.tune.beside:
        return tuned
    return (
        f"{tuned}, beside the teacher's standardized scores (weight {config.tune.beside_weight:g})"
    )


def _curves(log: list[dict[str, Any]]) -> list[Curve]:
    prompts = {f"prompt/{name}": name for name in ("distilled", "shuffled", "true")}
    adapters = {f"adapter/{name}": f"{name} prompt" for name in systems.TUNED.values()}
    wanted = [
        pretraining_curve(log),
        Curve("valid/NDCG@10", "Teacher: validation NDCG@10", {"teacher": "teacher"}),
        Curve("loss", "Stage 1: training loss", prompts),
        Curve(
            "valid/agreement",
            "Stage 1: validation, top-1 agreement with the teacher",
            prompts,
        ),
        Curve("loss", "Stage 2: training loss", adapters),
        Curve("valid/HR@1", "Stage 2: validation HR@1 of the next item", adapters),
    ]
    logged = {(row["run"], key) for row in log for key in row}
    return [
        curve for curve in wanted if any((run, curve.key) in logged for run in curve.runs or {})
    ]


def _adapter_ranks(ws: Workspace) -> list[dict[str, Any]]:
    _, meta = load_tree(files.adapter_path(ws, "distilled"))
    rows = []
    for path, rank in meta["ranks"].items():
        *layer, projection = path.split("/")
        rows.append({"layer": "/".join(layer), "projection": projection, "rank": rank})
    return rows


def notes(config: Experiment, data: Data) -> list[str]:
    """What a reader of the results must know about this run."""
    found = [
        "Intervals are 95 % bootstrap intervals over users; ties take the mean rank; `full` ranks the whole catalogue "
        "without the items that a user has seen, `full_with_seen` with them.",
        *corpus_warnings(data.corpus, data.split),
        "A gain of the distilled prompt over no prompt is no evidence of distillation: the control that counts is the prompt "
        "distilled from a shuffled teacher.",
    ]
    made_here, supervised = not config.lm.weights, systems.bare_name(config) == "lm_supervised"
    if data.world is not None:
        found += [
            "The storefront is generated: no figure here is a result on real data.",
            "The oracle's figures are computed from the generating process, not estimated from these users.",
        ]
    if data.world is not None and made_here:
        found.append(
            "The language model was pre-trained on the catalogue's text and on instructions that include the behaviors of "
            "the store's customers: this demonstration is built so that a prompt CAN express the pattern."
            + ("" if supervised else " It never saw a row of interactions.")
        )
    elif made_here:
        found.append(
            "The language model is small and was pre-trained here on this corpus' titles, attributes and training histories; "
            "it has no world knowledge. With pretrained weights these figures will differ."
        )
    else:
        found.append(
            f"The language model has the pretrained weights {config.lm.weights} (lm/base.json holds their SHA-256): "
            "what it already knew about these items is not controlled for."
        )
    if supervised:
        found.append(
            "Pre-training asked for users' own next items (pretrain.text.recent, cloze), in the words of evaluation: every row "
            "of the language model is one of a supervised recommender, also without a prompt; none is zero-shot."
        )
    return found
