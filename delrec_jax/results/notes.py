"""What tables say of intervals over users and seeds together, and of effect sizes, so that all say the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from delrec_jax.analysis.blocks import NOTHING, interval_text

OVER_SEEDS = "[users and seeds]"
"""The column of intervals over users and seeds together."""

EFFECTS_NOTE = (
    "Effect sizes: %, the difference in percent of the reference's mean; d_z, the mean difference over users in units of its "
    "standard deviation over users."
)


def seeds_interval_note(counts: Sequence[int]) -> str:
    """What an interval over users and seeds can see, and what it cannot.

    Args:
      counts: the numbers of seeds, each at least 2, of the rows that have such an interval; none if there is none.
    """
    if not counts:
        return ""
    shown = "/".join(map(str, counts))
    share = "/".join(f"{count - 1}/{count}" for count in counts)
    return (
        f"{OVER_SEEDS}: the 95 % interval when training seeds are drawn again too. Draws of {shown} seeds repeat the runs that "
        f"were seen: they show on average {share} of the variance between runs, and no failure that none of these had."
    )


def seeds_interval_text(row: Mapping[str, Any], *, signed: bool = False) -> str:
    """The interval over users and seeds of a row, which may have none."""
    if "low_seeds" not in row:
        return NOTHING
    ends = {"ci_low": row["low_seeds"], "ci_high": row["high_seeds"]}
    return interval_text(ends, signed=signed, digits=4)
