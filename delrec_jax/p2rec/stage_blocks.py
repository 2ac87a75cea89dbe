"""Tables of what P2Rec's own stages found: what the categories are groups of, and validation, by which ways are chosen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from delrec_jax.analysis.blocks import NOTHING, Block, Cell, Line
from delrec_jax.analysis.labels import SYSTEM_LABELS
from delrec_jax.teachers.registry import display_name

Row = Mapping[str, Any]


def category_block(parsed: Sequence[Row]) -> Block:
    """One line per seed.

    Args:
      parsed: rows of `parse.json`.
    """
    names = list(dict.fromkeys(name for row in parsed for name in row["categories"]["attributes"]))
    lines = []
    for row in parsed:
        checks, alone = row["categories"], row["one_item"]
        shared = [_number(checks["attributes"].get(name)) for name in names]
        cells = [
            Cell(f"{100 * checks['popularity_explained']:.0f} %"),
            _number(checks["popularity_deciles"]),
            *shared,
            *(_number(of["top_category"]) for of in (row, row["constant"], alone)),
            _number(alone["constant"]["top_category"]),
            Cell(f"{row['step']} of {row['steps']}" if row["step"] else "0: not tuned"),
        ]
        lines.append(Line(name="", label=f"seed {row['seed']}", cells=tuple(cells)))
    return Block(
        title="Latent categories",
        note="The share of the variance of log(1 + training count) that the categories explain; their adjusted mutual "
        "information (AMI, 0: chance) with the deciles of the counts and with the catalogue's attributes; and how often the "
        "parser and the mean target name a held-out user's top category, and the category of one item alone.",
        columns=(
            "Seed",
            "log-popularity explained",
            "AMI deciles",
            *(f"AMI {name}" for name in names),
            *("top category", "by the mean", "of one item", "by the mean", "selected step"),
        ),
        lines=tuple(lines),
    )


def category_lines(parsed: Sequence[Row]) -> list[str]:
    """The same in words, for the notes of the page: one sentence per seed, and one for a seed that tuned nothing."""
    found = []
    for row in parsed:
        checks = row["categories"]
        attributes = "".join(
            f", with {name} {value:.2f}" for name, value in checks["attributes"].items()
        )
        found.append(
            f"Categories of seed {row['seed']}: they explain {100 * checks['popularity_explained']:.0f} % of the variance of "
            f"log-popularity; adjusted mutual information with popularity deciles {checks['popularity_deciles']:.2f}"
            f"{attributes}."
        )
        if not row["step"]:
            found.append(
                f"Seed {row['seed']}: no step of parse was better than step 0 on the held-out users, so the language model is "
                "not tuned and its embeddings are those of the untuned one."
            )
    return found


def validation_block(trained: Sequence[Row]) -> Block:
    """One line per recommender and system: means over the seeds.

    Args:
      trained: rows of `augment.json`.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in trained:
        groups.setdefault((row["teacher"], row["system"]), []).append(row)
    lines = [
        Line(
            name=system,
            label=f"{SYSTEM_LABELS[system]} ({display_name(name)})",
            cells=(
                Cell(f"{np.mean([row['valid_ndcg10'] for row in rows]):.4f}"),
                _mean(rows, "alone_ndcg10"),
                Cell(", ".join(map(_step, rows))),
            ),
        )
        for (name, system), rows in groups.items()
    ]
    return Block(
        title="Validation",
        note="NDCG@10 of the validation items, ranked in the whole catalogue, seen items excluded; mean over the seeds. Ways "
        "of augmentation are compared by this, not by the test. An ensemble's part that reads texts is also given alone.",
        columns=("System", "NDCG@10", "text alone", "selected step of each seed"),
        lines=tuple(lines),
    )


def _step(row: Row) -> str:
    return f"{row['step']} of {row['steps']}" if row["steps"] else "solved"


def _mean(rows: Sequence[Row], key: str) -> Cell:
    return _number(np.mean([row[key] for row in rows]) if key in rows[0] else None, digits=4)


def _number(value: Any, digits: int = 3) -> Cell:
    return Cell(NOTHING if value is None else f"{value:.{digits}f}")
