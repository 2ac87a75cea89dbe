"""The model card of a shared folder: what the model is, how well it ranks beside what is simple, and what it does not do."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from delrec_jax.analysis.labels import base_label
from delrec_jax.config import Experiment
from delrec_jax.evaluation.systems import SIMPLE_BASELINES, system_order
from delrec_jax.hub.manifest import Manifest
from delrec_jax.printable import printable
from delrec_jax.teachers.registry import LISTS, display_name

PLACEHOLDER = "USER/NAME"
"""Stands for the repository's name until `push` knows it."""

_METRICS = ("HR@1", "HR@10", "NDCG@10")
_DECIDES = "NDCG@10"
_TEMPLATE = Path(__file__).parent / "templates" / "card.md.j2"
_TERMS = {
    "storefront": "The shop is generated: no terms apply.",
    "movielens": "MovieLens' license asks for separate permission before its data is redistributed; that includes titles.",
    "amazon": "Titles are texts of the sellers, and the terms of Amazon's review data differ by edition: check both.",
}
_OTHER_TERMS = "The terms of the data are for whoever publishes this to state."

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Facts:
    """What the card says beside results and settings.

    Attributes:
      corpus: the corpus's name.
      statistics: what `prepare` stored about it.
      model: the kind and size of the language model.
      example: some titles of the catalogue.
      notes: what a reader of the results must know.
      titles: whether titles are in the folder.
      license: of the weights; "" = not stated.
    """

    corpus: str
    statistics: Mapping[str, Any]
    model: str
    example: tuple[str, ...]
    notes: tuple[str, ...]
    titles: bool
    license: str


def model_card(
    experiment: Experiment, manifest: Manifest, rows: Sequence[Row], facts: Facts
) -> str:
    """Returns README.md with its metadata, `model-index` included.

    Args:
      experiment: the run's settings, as others may see them.
      manifest: what the folder holds.
      rows: rows of `metrics.json`; empty if the run has no report.
      facts: the rest.
    """
    # Imported late, because the import is slow.
    from huggingface_hub import ModelCard, ModelCardData

    corpus = _line(facts.corpus)
    protocol, found = _measured(experiment, rows)
    simple = [name for name in SIMPLE_BASELINES if (name, _DECIDES) in found]
    best = max(simple, key=lambda name: found[name, _DECIDES]["value"], default="")
    shared = (*manifest.teachers, *manifest.systems, *manifest.hybrids)
    data = ModelCardData(
        license=facts.license or None,
        library_name="delrec_jax",
        tags=["recommendation", "sequential-recommendation", "delrec", "jax"],
        base_model=manifest.base.name if "/" in manifest.base.name else None,
        model_name=f"DELRec on {corpus}",
        eval_results=_eval_results(corpus, protocol, found),
    )
    example = [*map(_line, facts.example)] if facts.titles else ["Title", "Title"]
    listed = sorted({*shared, *([best] if best else [])}, key=system_order)
    card = ModelCard.from_template(
        data,
        template_str=_TEMPLATE.read_text(encoding="utf-8"),
        facts=replace(facts, corpus=corpus.replace("<", "&lt;")),
        manifest=manifest,
        teacher=_teacher(experiment),
        seed=experiment.seed,
        protocol=protocol,
        table=_table(listed, found),
        verdict=_verdict(best, found),
        example=example,
        history=shlex.quote(example[0]),
        options="" if facts.titles else ", titles=...",
        flags="" if facts.titles else " --titles=FILE.csv",
        placeholder=PLACEHOLDER,
        terms=_TERMS.get(experiment.data.corpus, _OTHER_TERMS),
        absent=_absent(experiment, manifest, simple),
    )
    return str(card.content).rstrip() + "\n"


def _line(text: str) -> str:
    """A title or name of others in one line, so that it does not end the block of code or the line that it stands in."""
    return " ".join(printable(text).split())


def _measured(
    experiment: Experiment, rows: Sequence[Row]
) -> tuple[str, dict[tuple[str, str], Row]]:
    """The protocol of the card's table, and its rows by system and metric."""
    protocols = sorted({row["protocol"] for row in rows if row["system"] == "delrec"})
    sampled = f"sampled-{experiment.candidates.num}"
    protocol = "full" if "full" in protocols else sampled
    return protocol, {
        (row["system"], row["metric"]): row
        for row in rows
        if row["protocol"] == protocol
        and row["seed"] == experiment.seed
        and row["teacher"] in ("", experiment.teacher.name)
    }


def _eval_results(
    corpus: str, protocol: str, found: Mapping[tuple[str, str], Row]
) -> list[Any] | None:
    """DELRec's metrics as `model-index` has them."""
    from huggingface_hub import EvalResult

    results = []
    for metric in _METRICS:
        if row := found.get(("delrec", metric)):
            interval = f"95 % interval {row['ci_low']:.4f} to {row['ci_high']:.4f}"
            results.append(
                EvalResult(
                    task_type="recommendation",
                    task_name="Next item",
                    dataset_type=corpus.lower().replace(" ", "-"),
                    dataset_name=corpus,
                    dataset_split="test",
                    metric_type=metric.lower(),
                    metric_name=f"{metric} ({protocol}; {interval}; {row['users']} users)",
                    metric_value=round(float(row["value"]), 4),
                )
            )
    return results or None


def _table(listed: Sequence[str], found: Mapping[tuple[str, str], Row]) -> str:
    lines = [
        f"| {base_label(name)} | {' | '.join(_cell(found[name, metric]) for metric in _METRICS)} |"
        for name in listed
        if (name, _DECIDES) in found
    ]
    if not lines:
        return ""
    return "\n".join([f"| System | {' | '.join(_METRICS)} |", "| --- " * 4 + "|", *lines])


def _cell(row: Row) -> str:
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def _verdict(best: str, found: Mapping[tuple[str, str], Row]) -> str:
    """DELRec beside the strongest recommender that is neither trained nor a language model."""
    own = found.get(("delrec", _DECIDES))
    if not (best and own):
        return ""
    simple = found[best, _DECIDES]
    apart = own["ci_low"] > simple["ci_high"] or simple["ci_low"] > own["ci_high"]
    more = "higher" if own["value"] > simple["value"] else "no higher"
    return (
        f"The strongest simple baseline on these users is {base_label(best)}, with an {_DECIDES} of {_cell(simple)}. "
        f"DELRec's is {_cell(own)}: {more}, and the intervals {'do not overlap' if apart else 'overlap'}."
    )


def _teacher(experiment: Experiment) -> str:
    name = experiment.teacher.name
    return "another recommender" if name == LISTS else display_name(name)


def _absent(experiment: Experiment, manifest: Manifest, simple: Sequence[str]) -> str:
    """The recommenders beside DELRec that cannot be asked here."""
    names = [base_label(name) for name in simple]
    if not manifest.teachers and experiment.teacher.name != LISTS:
        names.append(f"the teacher ({_teacher(experiment)})")
    return ", ".join(names)
