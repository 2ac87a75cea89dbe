"""The training part of a corpus as the recommenders see it that are computed from it directly."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from delrec_jax.teachers.title_words import word_cosines


@dataclass(frozen=True)
class TrainingPart:
    """The interactions that are trained on, and the titles of the catalogue.

    Attributes:
      offsets: user u owns items[offsets[u]:offsets[u + 1]], in time order.
      items: the items of all users, one after the other.
      titles: title of every item.
    """

    offsets: Int[np.ndarray, " U+1"]
    items: Int[np.ndarray, " N"]
    titles: tuple[str, ...]

    def without(self, left_out: Bool[np.ndarray, " U"]) -> "TrainingPart":
        """Returns the same without the interactions of some users, who keep their numbers."""
        kept = np.where(left_out, 0, np.diff(self.offsets))
        offsets = np.concatenate([[0], np.cumsum(kept)]).astype(self.offsets.dtype)
        return TrainingPart(offsets, self.items[~left_out[self.users]], self.titles)

    @property
    def num_items(self) -> int:
        """I, the size of the catalogue."""
        return len(self.titles)

    @property
    def users(self) -> Int[np.ndarray, " N"]:
        """The user of each interaction."""
        lengths = np.diff(self.offsets)
        return np.repeat(np.arange(len(lengths)), lengths)

    @cached_property
    def co_occurrences(self) -> Float[np.ndarray, "I I"]:
        """How many users have both items; on the diagonal, how many have the item. Counted once for all settings."""
        from scipy import sparse  # imported late: a tenth of a second

        shape = (len(self.offsets) - 1, self.num_items)
        ones = np.ones(len(self.items), np.float32)
        given = sparse.csr_matrix((ones, (self.users, self.items)), shape=shape)
        given.data[:] = 1.0  # an item that a user has twice counts once
        counts: Float[np.ndarray, "I I"] = (given.T @ given).toarray()
        return counts

    @cached_property
    def title_cosines(self) -> Float[np.ndarray, "I I"]:
        """How similar the titles are by their words and pairs of words. Computed once for all settings.

        Raises:
          UserError: no title has a word.
        """
        return word_cosines(self.titles, 2)
