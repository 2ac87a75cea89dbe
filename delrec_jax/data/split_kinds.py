"""The kinds of splits: which part of each user's sequence is for training, and which items are targets.

leave_one_out    the last item is the test target, the one before it the validation target, the rest is for training
global_temporal  items before a date are for training; targets are users' last items before and after a second date
by_user          8 of 10 users are for training, with all their items; the last item of each other user is a target
given            the source's own: windows for training, with all their items, and others whose last item is a target
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from delrec_jax import prng
from delrec_jax.data.interactions import Corpus, Interactions
from delrec_jax.data.splits import PARTS, Part, Split, Targets, partition_users
from delrec_jax.errors import UserError

MIN_INTERACTIONS = 3
"""The fewest interactions of an evaluated user: one to train on, one to validate with, one to test with."""


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """How the corpus is split.

    Attributes:
      kind: "leave_one_out", "global_temporal", "by_user" or "given".
      valid_from: For "global_temporal": the share of all interactions before the validation period.
      test_from: For "global_temporal": the share of all interactions before the test period.
      valid_users: For "by_user": the share of users whose last item is a validation target.
      test_users: For "by_user": the share of users whose last item is a test target.
      label_users: number of users whose interactions are trained on, drawn at random; 0 = all that the split has. The other
        users are evaluated as before, so this is an experiment with few labels: every stage sees these alone.
      seed: seed of the assignment of users ("by_user") and of the draw of `label_users`.
    """

    kind: str = "leave_one_out"
    valid_from: float = 0.8
    test_from: float = 0.9
    valid_users: float = 0.1
    test_users: float = 0.1
    label_users: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"split.kind is {self.kind!r}: use one of {', '.join(KINDS)}")
        if self.label_users < 0:
            raise UserError(
                f"split.label_users is {self.label_users}: it must be at least 0 (0 = all users)"
            )
        read = (*KINDS[self.kind].reads, "label_users", *(("seed",) if self.label_users else ()))
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default and field.name not in read:
                raise UserError(
                    f"split.{field.name} is {value}, but split.kind={self.kind} does not read it; leave it out"
                )
        if not 0 < self.valid_from < self.test_from < 1:
            raise UserError(
                f"split.valid_from is {self.valid_from} and split.test_from {self.test_from}: "
                "both are shares of the interactions, 0 < valid_from < test_from < 1"
            )
        if min(self.valid_users, self.test_users) <= 0 or self.valid_users + self.test_users >= 1:
            raise UserError(
                f"split.valid_users is {self.valid_users} and split.test_users {self.test_users}: both are shares of the "
                "users, must be above 0, and must leave users to train on"
            )


def make_split(corpus: Corpus, config: SplitConfig) -> Split:
    """Splits a corpus.

    Raises:
      UserError: validation, test or training would be empty; the split is "global_temporal" but the corpus's times are
        positions; or it is "given" but the corpus is not split by its source, or the other way round.
    """
    split = _split_of_kind(corpus, config)
    return few_labels(split, config) if config.label_users else split


def few_labels(split: Split, config: SplitConfig) -> Split:
    """Keeps the training part of `label_users` users drawn at random, and validates on these users where it can.

    Who is tested, and from which items, stays as it is.

    Raises:
      UserError: fewer users than that have a training part, or none of those drawn has a validation target.
    """
    users, count = split.training_users, config.label_users
    if count > len(users):
        raise UserError(
            f"split.label_users is {count}, but only {len(users)} users have a training part: use at most {len(users)}"
        )
    kept = prng.generator(config.seed, "label-users").permutation(users)[:count]
    trained = np.zeros_like(split.train.lengths)
    trained[kept] = split.train.lengths[kept]
    valid = split.parts["valid"]
    own = np.isin(valid.users, kept)
    parts = dict(split.parts)
    if np.isin(valid.users, users).any():  # not under "by_user": nobody is in two parts there
        if not own.any():
            raise UserError(
                f"split.label_users={count}: none of the users drawn has a validation target, and validating on others would "
                "use labels that are meant to be missing; use more users, or another split.seed"
            )
        parts["valid"] = Targets(valid.users[own], valid.places[own])
    return split_of_lengths(split.kind, split.interactions, trained, parts)


def _split_of_kind(corpus: Corpus, config: SplitConfig) -> Split:
    kind = KINDS[config.kind]
    if corpus.parts is not None and not kind.by_source:
        raise UserError(
            f"split.kind is {config.kind!r}, but {corpus.name!r} comes in windows for training, validation and test that "
            "overlap: the target of one would be trained on in another; use split.kind=given"
        )
    if corpus.ordered_only and kind.by_date:
        raise UserError(
            f"split.kind is {config.kind!r}, but the times of {corpus.name!r} are positions (0, 1, 2, ...) within each "
            "user: they order each user's items, but cannot be compared between users; use leave_one_out or by_user"
        )
    return kind.make(corpus, config)


def leave_one_out(interactions: Interactions) -> Split:
    """Splits each user's sequence into training, one validation and one test item.

    Args:
      interactions: Sequences in time order. Users with fewer than 3 interactions are trained on and not evaluated.

    Raises:
      UserError: if no user has enough interactions to be evaluated.
    """
    asked = _long_enough(interactions, "leave_one_out")
    ends = interactions.offsets[1:][asked]
    places = {"valid": ends - 2, "test": ends - 1}
    parts = {part: Targets(asked, places[part]) for part in PARTS}
    trained = interactions.lengths.copy()
    trained[asked] -= 2
    return split_of_lengths("leave_one_out", interactions, trained, parts)


def by_user(interactions: Interactions, config: SplitConfig) -> Split:
    """Assigns the users themselves to training, validation and test.

    The last item of a validation or test user is the target; none of that user's items is used for training. Users with fewer
    than 3 interactions are training users.

    Raises:
      UserError: if a part would get no user.
    """
    long = _long_enough(interactions, "by_user")
    shares = {"valid": config.valid_users, "test": config.test_users}
    shares = {"train": 1 - sum(shares.values()), **shares}
    dealt = partition_users(long, shares, config.seed)
    trained = interactions.lengths.copy()
    parts: dict[Part, Targets] = {}
    for part in PARTS:
        trained[dealt[part]] = 0
        parts[part] = Targets(dealt[part], interactions.offsets[1:][dealt[part]] - 1)
    return split_of_lengths("by_user", interactions, trained, parts)


def global_temporal(interactions: Interactions, config: SplitConfig) -> Split:
    """Splits at two dates, the same for all users: no training item is later than any target.

    The dates are quantiles of all times. Items before the first date are for training. Validation targets are users' last
    items between the dates, test targets their last items from the second date on. A user's first item is never a target.

    Raises:
      UserError: training, validation or test would be empty.
    """
    if not len(interactions.items):
        raise UserError("split global_temporal: the corpus has no interactions to take dates from")
    order = np.sort(interactions.times)
    dates = {
        part: order[min(int(share * len(order)), len(order) - 1)]
        for part, share in (("valid", config.valid_from), ("test", config.test_from))
    }
    trained, until_test = (_before(interactions, dates[part]) for part in PARTS)
    spans: dict[Part, tuple[np.ndarray, np.ndarray]] = {
        "valid": (trained, until_test),
        "test": (until_test, interactions.lengths),
    }
    parts: dict[Part, Targets] = {}
    for part, (begin, end) in spans.items():
        users = np.flatnonzero((end > begin) & (end >= 2)).astype(np.int32)
        parts[part] = Targets(users, (interactions.offsets[:-1] + end - 1)[users])
    if not trained.any() or not all(len(asked.users) for asked in parts.values()):
        raise UserError(
            f"split global_temporal: {int(trained.sum())} interactions to train on, "
            f"{len(parts['valid'].users)} users in validation and {len(parts['test'].users)} in test: none may be 0; choose "
            "other split.valid_from and split.test_from, or another split.kind"
        )
    return split_of_lengths("global_temporal", interactions, trained, parts)


def given(corpus: Corpus) -> Split:
    """Takes the parts that the source has: all items of a training window are for training, none of the others' are.

    The last item of a validation or test window is its target, and the items before it are given.

    Raises:
      UserError: the source does not split its users itself, or a part has no window with a history.
    """
    if corpus.parts is None:
        raise UserError(
            f"split.kind is 'given', but {corpus.name!r} has no training, validation and test windows of its own; use "
            f"another of {', '.join(KINDS)}"
        )
    interactions, of_user = corpus.interactions, np.array(corpus.parts)
    trained = np.where(of_user == "train", interactions.lengths, 0)
    asked = {
        part: np.flatnonzero((of_user == part) & (interactions.lengths >= 2)) for part in PARTS
    }
    parts: dict[Part, Targets] = {
        part: Targets(users.astype(np.int32), interactions.offsets[1:][users] - 1)
        for part, users in asked.items()
    }
    if not trained.any() or not all(len(users) for users in asked.values()):
        raise UserError(
            f"split given: {int(trained.sum())} interactions to train on, {len(asked['valid'])} windows in validation and "
            f"{len(asked['test'])} in test: none may be 0; give {corpus.name!r} with all its windows"
        )
    return split_of_lengths("given", interactions, trained, parts)


def _before(interactions: Interactions, date: int) -> np.ndarray:
    """Returns how many interactions of each user came before a date."""
    counts = np.concatenate([[0], np.cumsum(interactions.times < date)])
    return np.diff(counts[interactions.offsets])


def _long_enough(interactions: Interactions, kind: str) -> np.ndarray:
    lengths = interactions.lengths
    users = np.flatnonzero(lengths >= MIN_INTERACTIONS).astype(np.int32)
    if not len(users):
        longest = int(lengths.max()) if len(lengths) else 0
        raise UserError(
            f"split {kind}: none of {len(lengths)} users has {MIN_INTERACTIONS} "
            f"interactions (the longest history has {longest}), so nobody can be evaluated; "
            "lower data.k_core or data.min_rating, or give a corpus with longer histories"
        )
    return users


def split_of_lengths(
    kind: str, interactions: Interactions, trained: np.ndarray, parts: Mapping[Part, Targets]
) -> Split:
    """Returns the split in which each user's first `trained` interactions are for training.

    Args:
      kind: One of `KINDS`.
      interactions: Complete sequences.
      trained: int [U], from 0 to the length of the user's sequence.
      parts: The users and targets of each part.
    """
    offsets = np.concatenate([[0], np.cumsum(trained)]).astype(np.int64)
    starts = interactions.offsets[:-1]
    kept = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], trained)
    train = Interactions(
        user_ids=interactions.user_ids,
        offsets=offsets,
        items=interactions.items[kept],
        times=interactions.times[kept],
    )
    return Split(kind, interactions, train, parts)


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a kind of split is made.

    Attributes:
      reads: the settings of `SplitConfig` that it reads, beside those of every kind.
      by_source: whether it takes the parts that the corpus comes in.
      by_date: whether it compares times between users.
    """

    make: Callable[[Corpus, SplitConfig], Split]
    reads: tuple[str, ...] = ()
    by_source: bool = False
    by_date: bool = False


KINDS: Mapping[str, Kind] = {
    "leave_one_out": Kind(lambda corpus, config: leave_one_out(corpus.interactions)),
    "global_temporal": Kind(
        lambda corpus, config: global_temporal(corpus.interactions, config),
        reads=("valid_from", "test_from"),
        by_date=True,
    ),
    "by_user": Kind(
        lambda corpus, config: by_user(corpus.interactions, config),
        ("valid_users", "test_users", "seed"),
    ),
    "given": Kind(lambda corpus, config: given(corpus), by_source=True),
}
