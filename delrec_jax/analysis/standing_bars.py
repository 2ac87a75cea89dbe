"""The picture of a report's first screen: all systems as bars with intervals, laid out for the page to draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delrec_jax.analysis.headline import VECTOR_CONTROLS, Headline
from delrec_jax.analysis.labels import system_label
from delrec_jax.evaluation.systems import TITLE_VECTORS

Row = Mapping[str, Any]

_ROOM = 1.02  # of the longest interval, so that its end is not cut off
_UNTRAINED, _BESIDE = " (step 0)", " (beside the teacher)"


@dataclass(frozen=True)
class Bar:
    """One system in the picture; lengths and places are percent of its width.

    Attributes:
      kind: "method", "control", "baseline" (the strongest simple one), or "" for the others.
    """

    label: str
    kind: str
    value: str
    interval: str
    length: float
    low: float
    high: float


@dataclass(frozen=True)
class Picture:
    """All systems as bars, best first; with several recommenders by recommender, baselines first."""

    groups: Sequence[tuple[str, Sequence[Bar]]]  # (recommender, or "" if there is one for all)
    oracle: float | None  # its place in percent of the width
    oracle_value: str


def picture(headline: Headline) -> Picture:
    """The standings as bars."""
    rows, digits = headline.standings, headline.digits
    ends = [row["ci_high"] for row in rows] + [headline.oracle or 0.0]
    width = 100 / (_ROOM * max(*ends, 1e-9))
    teachers = sorted({row["teacher"] for row in rows if row["teacher"]})
    several = len(teachers) > 1
    groups = []
    for teacher in ["", *teachers] if several else [None]:
        own = [row for row in rows if teacher is None or row["teacher"] == teacher]
        if own:
            ordered = sorted(own, key=lambda row: -row["value"])
            name = headline.recommenders.get(teacher or "", teacher or "")
            title = (name or "Same for all recommenders") if several else ""
            groups.append((title, [_bar(row, headline, width) for row in ordered]))
    oracle = headline.oracle
    return Picture(
        groups=groups,
        oracle=None if oracle is None else oracle * width,
        oracle_value="" if oracle is None else f"{oracle:.{digits}f}",
    )


def _bar(row: Row, headline: Headline, width: float) -> Bar:
    digits = headline.digits
    label = system_label(row["system"], row["teacher"], teachers=False)
    return Bar(
        label=label + (_UNTRAINED if row["step"] == 0 else "") + (_BESIDE if row["beside"] else ""),
        kind=_kind(row["system"], headline),
        value=f"{row['value']:.{digits}f}",
        interval=f"[{row['ci_low']:.{digits}f}, {row['ci_high']:.{digits}f}]",
        length=row["value"] * width,
        low=row["ci_low"] * width,
        high=row["ci_high"] * width,
    )


def _kind(system: str, headline: Headline) -> str:
    if system == headline.method:
        return "method"
    if system == headline.baseline:
        return "baseline"
    return "control" if is_control(system) else ""


def is_control(system: str) -> bool:
    """Whether a system is there to tell what the method's gain is due to, not to be used."""
    prompts = system.startswith("lm_") and system not in (*TITLE_VECTORS, "lm_distilled_prompt")
    return prompts or system in VECTOR_CONTROLS
