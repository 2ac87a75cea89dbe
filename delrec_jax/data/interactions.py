"""A corpus in memory: the catalogue, all users' interactions, and what was left out.

Items are numbered 0..I-1 in the order of the catalogue and users 0..U-1 in the order of the interactions; every array of the
project uses these numbers, and raw ids and titles appear only where people read or write.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32, Int64


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """The items that can be recommended.

    Attributes:
      ids: Raw item ids of the source; the position is the item's number.
      titles: One title per item, non-empty and unique.
      attributes: By name (such as "genre"), one value per item; "" if unknown.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        columns = {"titles": self.titles, **self.attributes}
        wrong = [name for name, values in columns.items() if len(values) != len(self.ids)]
        if wrong:
            raise ValueError(f"{wrong} do not have one value for each of {len(self.ids)} items")
        if len(set(self.ids)) < len(self.ids):
            raise ValueError("item ids must be unique")
        if len(set(self.titles)) < len(self.titles) or not all(self.titles):
            raise ValueError("titles must be unique and non-empty")

    @property
    def num_items(self) -> int:
        """The number of items, I."""
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Interactions:
    """All users' sequences as compressed rows, each in time order.

    Attributes:
      user_ids: Raw user ids of the source; the position is the user's number.
      offsets: int64 [U+1]; user u owns `items[offsets[u]:offsets[u + 1]]`.
      items: int32 [N] item numbers.
      times: int64 [N] seconds (or positions, where the source has only an order).
    """

    user_ids: tuple[str, ...]
    offsets: Int64[np.ndarray, "U+1"]
    items: Int32[np.ndarray, "N"]
    times: Int64[np.ndarray, "N"]

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.user_ids) + 1:
            count = len(self.user_ids)
            raise ValueError(f"{count} users need {count + 1} offsets, not {len(self.offsets)}")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise ValueError("offsets must run from 0 to the number of interactions")
        if np.any(np.diff(self.offsets) < 0) or len(self.items) != len(self.times):
            raise ValueError("offsets must not decrease, and each item must have one time")

    @property
    def num_users(self) -> int:
        """The number of users, U."""
        return len(self.user_ids)

    @property
    def lengths(self) -> Int64[np.ndarray, "U"]:
        """The number of interactions of each user."""
        return np.diff(self.offsets)

    def history(self, user: int) -> Int32[np.ndarray, "L"]:
        """All items of one user, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A named catalogue with its interactions.

    Attributes:
      name: The corpus's name in every report.
      catalogue: The items.
      interactions: The sequences; every item number is below `Catalogue.num_items`.
      dropped: For each reason, the number of rows that were left out or changed because of it.
      ordered_only: Whether the source gives the order of each user's items but no times: `times` are then positions, which
        cannot be compared between users.
      parts: Where the source splits its users itself, each user's part: "train", "valid" or "test"; None elsewhere.
    """

    name: str
    catalogue: Catalogue
    interactions: Interactions
    dropped: Mapping[str, int]
    ordered_only: bool = False
    parts: tuple[str, ...] | None = None


def from_rows(
    user_ids: Sequence[str],
    rows: Sequence[Int32[np.ndarray, "L"]],
    times: Sequence[Int64[np.ndarray, "L"]],
) -> Interactions:
    """Compresses one array of items and one of times per user into `Interactions`."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Interactions(
        user_ids=tuple(user_ids),
        offsets=offsets,
        items=np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32),
        times=np.concatenate([np.zeros(0, np.int64), *times]).astype(np.int64),
    )


def untitled(item_id: str) -> str:
    """Returns the placeholder title of an item for which the source has none."""
    return f"untitled item {item_id}"


def titled_share(catalogue: Catalogue) -> float:
    """Returns the share of items for which the source has a title."""
    pairs = zip(catalogue.titles, catalogue.ids, strict=True)
    return float(np.mean([title != untitled(own) for title, own in pairs]))


def fingerprint(corpus: Corpus) -> str:
    """Returns the SHA-256 (hex) of the content: ids, titles, attributes, sequences and parts, but not the name."""
    catalogue, interactions = corpus.catalogue, corpus.interactions
    digest = hashlib.sha256()
    names = sorted(catalogue.attributes)
    columns = [catalogue.ids, catalogue.titles, *(catalogue.attributes[name] for name in names)]
    for texts in (
        names,
        *columns,
        interactions.user_ids,
        *([corpus.parts] if corpus.parts else []),
    ):
        _update_with_texts(digest, texts)
    for array in (interactions.offsets, interactions.items, interactions.times):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def statistics(corpus: Corpus) -> dict[str, int | float | str | bool]:
    """Returns statistics of a corpus.

    Args:
      corpus: A corpus with at least one interaction.

    Returns:
      The numbers of users, items and interactions, the density (the share of all pairs of user and item), the mean, median,
      minimum and maximum length of a sequence, the share of items with a title of their own, the first and last time (in
      units of the source), whether times are only positions, the number of interactions at the same time as the user's
      previous one (their order is a convention), and the content's fingerprint.
    """
    catalogue, interactions = corpus.catalogue, corpus.interactions
    lengths = interactions.lengths
    pairs = interactions.num_users * catalogue.num_items
    return {
        "users": interactions.num_users,
        "items": catalogue.num_items,
        "interactions": len(interactions.items),
        "density": len(interactions.items) / pairs,
        "length_mean": float(lengths.mean()),
        "length_median": float(np.median(lengths)),
        "length_min": int(lengths.min()),
        "length_max": int(lengths.max()),
        "titled": titled_share(catalogue),
        "time_first": int(interactions.times.min()),
        "time_last": int(interactions.times.max()),
        "ordered_only": corpus.ordered_only,
        "tied_neighbours": tied_neighbours(interactions),
        "fingerprint": fingerprint(corpus),
    }


def tied_neighbours(interactions: Interactions) -> int:
    """Returns how many interactions have the same time as the user's previous one."""
    tied = np.diff(interactions.times) == 0
    starts = interactions.offsets[1:-1]
    starts = starts[(starts > 0) & (starts < len(interactions.times))]
    tied[starts - 1] = False  # the previous interaction is another user's
    return int(tied.sum())


def _update_with_texts(digest: "hashlib._Hash", texts: Sequence[str]) -> None:
    """Adds texts to a digest, lengths first, so that no two different sequences have the same digest."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    digest.update(np.int64(len(texts)).tobytes())
    digest.update(lengths.tobytes())
    digest.update("".join(texts).encode())
