"""What P2Rec's augmentation is worth: each augmented teacher against itself and two controls.

That text helps is shown by a rise above the teacher alone, that *tuning* helps by a rise above
embeddings of the untuned language model, and that the items' *own* texts help by a rise above
the tuned one's embeddings of shuffled texts. All of these are asked at once, of every teacher.
"""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from delrec_jax.evaluation.records import PART_OF_USERS
from delrec_jax.evaluation.significance import Comparison, compare, holm
from delrec_jax.p2rec.cells import SHUFFLED, UNTUNED
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN

REFERENCES = (PLAIN, UNTUNED, SHUFFLED)


def augmentation_pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    """The augmented teacher against the plain one and the two controls, among those there."""
    if AUGMENTED not in systems:
        return []
    return [(AUGMENTED, reference) for reference in REFERENCES if reference in systems]


def compare_augmentations(
    records: pl.DataFrame,
    metric: str,
    *,
    parts: Sequence[str] = ("all",),
    protocol: str = "full",
    seed: int = 0,
    resamples: int = 10_000,
) -> list[Comparison]:
    """`compare` for every teacher, pair and part: one family, corrected by Holm over all of it.

    Args:
        records: rank records of one corpus and split, of any teachers and seeds.
        metric: one of `METRICS`.
        parts: "all" and names of `PART_OF_USERS`; one without any user (no cold target, say)
            is passed over.
        protocol: the protocol of all.
        seed: of the bootstraps and the permutations.
        resamples: sign patterns of each test.

    Returns:
        By teacher, in the order of their names, then by part and pair as they were asked; empty
        where no teacher was augmented.

    Raises:
        UserError: as `compare`.
    """
    ranked = records.filter(protocol=protocol)
    family = []
    for teacher in ranked["teacher"].unique().sort():
        own = ranked.filter(teacher=teacher)
        pairs = augmentation_pairs(own["system"].unique().to_list())
        family += [
            compare(
                own, *pair, metric, protocol=protocol, part=part, seed=seed, resamples=resamples
            )
            for part in parts
            if _has_users(own, part)
            for pair in pairs
        ]
    adjusted = holm([one.p_value for one in family])
    return [replace(one, p_adjusted=p) for one, p in zip(family, adjusted, strict=True)]


def _has_users(records: pl.DataFrame, part: str) -> bool:
    """Whether the part has users; an unknown name has, so that `compare` can refuse it."""
    return part not in PART_OF_USERS or not records.filter(PART_OF_USERS[part]).is_empty()
