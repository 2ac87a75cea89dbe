"""What a reader of a run's results must know of its corpus and split: what makes a comparison weak or meaningless."""

from delrec_jax.data.corpora.tables import NO_TITLE_ROW, REPEATED
from delrec_jax.data.interactions import Corpus, titled_share
from delrec_jax.data.splits import Split

_TITLED = 0.9  # below this share of items with a title, a warning
_TIED = 0.05  # from this share of test users on
# Reason -> the share of the rows above which it is told, and what it may mean.
_LOSSES = {
    NO_TITLE_ROW: (
        0.1,
        "check that both files write item ids alike (leading zeros, an id of another column), or add these items",
    ),
    REPEATED: (
        0.3,
        "the corpus is now of first or last times; where users come back to items, as to songs, see data.repeats",
    ),
}


def corpus_warnings(corpus: Corpus, split: Split) -> list[str]:
    """Returns one sentence for each: items without titles, targets whose order is the source's or that repeat, few users."""
    found = []
    titled = titled_share(corpus.catalogue)
    if titled < _TITLED:
        found.append(
            f"only {100 * titled:.0f} % of the items have a title: of the others a language model reads no more than their id"
        )
    if (tied := tied_targets(split)) >= _TIED:
        found.append(
            f"{100 * tied:.0f} % of the test users have their target at the same time as the item before it: which of the two "
            "came last is decided by data.time_ties"
        )
    found += _losses(corpus)
    if repeated := repeated_targets(split):
        found.append(
            f"{repeated} test users have had their target before (data.repeats=keep): `full` and `sampled-m` rank it among "
            "items that the user has not had, so that a system which prefers what was seen looks right there, and `rerank-m` "
            "always misses it; read `full_with_seen` alone. Validation selects settings and steps by `full`"
        )
    return [*found, *split.warnings()]


def _losses(corpus: Corpus) -> list[str]:
    """Returns a sentence for each rule that has left out so many rows that files or rule may not be what was meant."""
    kept, found = len(corpus.interactions.items), []
    for reason, (least, meaning) in _LOSSES.items():
        lost = corpus.dropped.get(reason, 0)
        if lost > least * (lost + kept):
            found.append(
                f"{lost} rows are left out beside {kept} that are kept ({reason}): {meaning}"
            )
    return found


def repeated_targets(split: Split) -> int:
    """Returns the number of test users whose target is in their history."""
    pairs = zip(split.target("test"), split.histories("test"), strict=True)
    return sum(int(target in history) for target, history in pairs)


def tied_targets(split: Split) -> float:
    """Returns the share of test users whose target has the same time as the last item of its history."""
    asked, interactions = split.parts["test"], split.interactions
    follows = asked.places > interactions.offsets[asked.users]
    before = asked.places - follows
    same = interactions.times[asked.places] == interactions.times[before]
    return float((follows & same).mean())
