"""The table of P2Rec's ways: the validation NDCG@10 of each with one seed, and what the latent categories are."""

from collections.abc import Mapping
from typing import Any

from delrec_jax.analysis.blocks import Block, Cell, Line, to_markdown


def ways_table(found: Mapping[str, Mapping[str, Any]], options: Mapping[str, str]) -> str:
    """Ways by corpora; the best of each corpus is in bold.

    Args:
        found: for each name, what `augmentations.validated` stored.
        options: none.
    """
    names = list(dict.fromkeys(way["way"] for one in found.values() for way in one["ways"]))
    values = {
        name: {way["way"]: way["valid_ndcg10"] for way in one["ways"]}
        for name, one in found.items()
    }
    lines = [_line("plain", [one["plain_valid_ndcg10"] for one in found.values()])]
    for way in names:
        row = [values[name].get(way) for name in found]
        best = [
            max(values[name], key=lambda one, name=name: values[name][one]) == way for name in found
        ]
        lines.append(_line(way, row, best))
    lines += [
        Line(
            "", "log-popularity that the categories explain", tuple(map(_explained, found.values()))
        ),
        Line(
            "",
            "adjusted mutual information with popularity deciles",
            tuple(map(_deciles, found.values())),
        ),
    ]
    return to_markdown(
        Block(
            title="P2Rec: SASRec's validation NDCG@10 by way, one seed",
            note="All validation users, the whole catalogue without seen items; selected by the same metric. "
            "No test item was ranked for this choice.",
            columns=("Way", *found),
            lines=tuple(lines),
        )
    )


def _line(label: str, row: list[float | None], best: list[bool] | None = None) -> Line:
    marks = best or [False] * len(row)
    cells = []
    for value, is_best in zip(row, marks, strict=True):
        text = "–" if value is None else f"{value:.4f}"
        cells.append(Cell(f"**{text}**" if is_best else text))
    return Line("", label, tuple(cells))


def _explained(one: Mapping[str, Any]) -> Cell:
    return Cell(f"{100 * one['parse'][0]['categories']['popularity_explained']:.0f} %")


def _deciles(one: Mapping[str, Any]) -> Cell:
    return Cell(f"{one['parse'][0]['categories']['popularity_deciles']:.3f}")
