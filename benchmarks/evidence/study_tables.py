"""Tables of what a stored study says beyond accuracy: what its systems cost, and what they recommend."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from delrec_jax.analysis.blocks import Block
from delrec_jax.errors import UserError
from delrec_jax.results.selecting import Options, Summary
from delrec_jax.studies.beyond import costs_block, lists_block


def costs_table(found: Mapping[str, Summary], options: Options) -> Block:
    """Trained numbers, time and memory by system, of the arms that `arms` names by patterns."""
    return _known(costs_block(_rows(found, options, "costs")), "costs")


def lists_table(found: Mapping[str, Summary], options: Options) -> Block:
    """Coverage, popularity, novelty and agreement by system, of the arms that `arms` names by patterns."""
    return _known(lists_block(_rows(found, options, "beyond")), "lists")


def _rows(found: Mapping[str, Summary], options: Options, part: str) -> Sequence[dict[str, Any]]:
    (summary,) = found.values()
    patterns = options.get("arms", "*").split(",")
    rows = summary.get(part, [])
    return [
        row
        for row in rows
        if not row["label"] or any(fnmatchcase(row["label"], pattern) for pattern in patterns)
    ]


def _known(block: Block | None, what: str) -> Block:
    if block is None:
        raise UserError(f"this study has no {what} of these arms")
    return block
