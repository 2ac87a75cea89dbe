"""What P2Rec's augmentation is worth: each augmented teacher against the plain one and three controls.

A gain over the plain teacher shows that the vectors help, a gain over random vectors of the same
spectrum that it is what they *say*, a gain over embeddings of the untuned language model that
*tuning* helps, and a gain over the tuned model's embeddings of shuffled texts that the items' *own*
texts help. All of these are tested at once, for every teacher.
"""

from collections.abc import Sequence

import polars as pl

from delrec_jax.evaluation.records import PART_OF_USERS
from delrec_jax.evaluation.significance import Comparison, compare, corrected
from delrec_jax.p2rec.cells import RANDOM, SHUFFLED, UNTUNED
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN

REFERENCES = (PLAIN, UNTUNED, SHUFFLED, RANDOM)

_PROTOCOL = "full"


def augmentation_pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    """The augmented teacher paired with the plain one and the controls, as far as they are in `systems`."""
    if AUGMENTED not in systems:
        return []
    return [(AUGMENTED, reference) for reference in REFERENCES if reference in systems]


def compare_augmentations(
    records: pl.DataFrame,
    metric: str,
    *,
    parts: Sequence[str] = ("all",),
    seed: int = 0,
    resamples: int = 10_000,
) -> list[Comparison]:
    """Runs `compare` for every teacher, pair and part; all are one family, corrected by Holm.

    Args:
      records: rank records of one corpus and split, of any teachers and seeds.
      metric: one of `METRICS`.
      parts: "all" and names of `PART_OF_USERS`; a part without users (no cold targets, say)
        is skipped.
      seed: seed of the bootstraps and the permutations.
      resamples: sign patterns per test.

    Returns:
      The comparisons by teacher in alphabetical order, then by part and pair in the given
      order; empty if no teacher was augmented.

    Raises:
      UserError: as `compare`.
    """
    ranked = records.filter(protocol=_PROTOCOL)
    family = []
    for teacher in ranked["teacher"].unique().sort():
        own = ranked.filter(teacher=teacher)
        pairs = augmentation_pairs(own["system"].unique().to_list())
        family += [
            compare(
                own, *pair, metric, protocol=_PROTOCOL, part=part, seed=seed, resamples=resamples
            )
            for part in parts
            if _has_users(own, part)
            for pair in pairs
        ]
    return corrected(family)


def _has_users(records: pl.DataFrame, part: str) -> bool:
    """Whether the part has users; True for an unknown name, so that `compare` can refuse it."""
    return part not in PART_OF_USERS or not records.filter(PART_OF_USERS[part]).is_empty()
