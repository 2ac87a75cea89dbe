"""What a reader of a run's results must know of its corpus and split: what makes a comparison weak or meaningless."""

from delrec_jax.data.interactions import Corpus, titled_share
from delrec_jax.data.splits import Split

_TITLED = 0.9  # below this share of items with a title, a warning
_TIED = 0.05  # from this share of test users on


def corpus_warnings(corpus: Corpus, split: Split) -> list[str]:
    """Returns one sentence for each: items without titles, targets whose order is the source's or that repeat, few users."""
    found = []
    titled = titled_share(corpus.catalogue)
    if titled < _TITLED:
        found.append(
            f"only {100 * titled:.0f} % of the items have a title: of the others a language model reads no more than their id"
        )
    tied = 0.0 if corpus.ordered_only else tied_targets(split)
    if tied >= _TIED:
        found.append(
            f"{100 * tied:.0f} % of the test users have their target at the same time as the item before it: which of the two "
            "came last is decided by data.time_ties"
        )
    if repeated := repeated_targets(split):
        found.append(
            f"{repeated} test users have had their target before (data.repeats=keep): `full` ranks it among unseen items, so "
            "that a system which prefers seen items looks right there, and `rerank-m` always misses it; read `full_with_seen`"
        )
    return [*found, *split.warnings()]


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
