"""All titles' tokens in one array, so that a run of titles takes one gather instead of a loop over items."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int32, Int64

Ids = Int32[np.ndarray, "T"]
Items = Sequence[int] | np.ndarray  # item indices in order: a list, or int32 as they are stored

NO_TOKENS: Ids = np.zeros(0, np.int32)
_FEW = 6  # for up to this many titles, a loop is faster than a gather, which has a fixed cost


class TitleTokens:
    """The tokens of each title, as a sequence of arrays, and of runs of titles with separators.

    Attributes:
      separator_length: tokens of the separator.
      separated_lengths: int64 [I], tokens of a separator and each title.
      kept: last tokens of each title that `cut` never takes away.
    """

    def __init__(self, titles: Sequence[Ids], separator: Ids, kept: int = 0):
        """Lays the titles out one after another, each after a separator."""
        self.kept, self._separator = kept, separator
        lengths = np.array([len(title) for title in titles], np.int64)
        self.separator_length = len(separator)
        self.separated_lengths: Int64[np.ndarray, I] = lengths + len(separator)
        self._ends = np.cumsum(self.separated_lengths)
        self._starts = self._ends - self.separated_lengths
        parts = [part for title in titles for part in (separator, title)]
        self._tokens = np.concatenate([NO_TOKENS, *parts])

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, item: int) -> Ids:
        return self._behind_separator(item)[self.separator_length :]

    def __iter__(self) -> Iterator[Ids]:
        return (self[item] for item in range(len(self)))

    def cut(self, length: int) -> "TitleTokens":
        """Returns the same titles, each with its first `length` tokens at most, and those that are always kept."""
        parts = [np.split(title, [len(title) - self.kept]) for title in self]
        titles = [np.concatenate([words[:length], slots]) for words, slots in parts]
        return TitleTokens(titles, self._separator, self.kept)

    def followed_by(self, tokens: Ids) -> "TitleTokens":
        """Returns the same titles with one more token after each: `tokens[i]` after title i, which is always kept."""
        titles = [np.append(title, token) for title, token in zip(self, tokens, strict=True)]
        return TitleTokens(titles, self._separator, self.kept + 1)

    def joined(self, items: Items) -> Ids:
        """Returns the titles of these items with separators between them."""
        if len(items) > _FEW:
            run = self._behind_separators(np.asarray(items, np.intp))
        else:
            run = np.concatenate([NO_TOKENS, *map(self._behind_separator, items)])
        return run[self.separator_length :]

    def joined_behind_codes(self, items: Items, codes: Ids) -> Ids:
        """Works like `joined`, with one more token before each title: `codes[j]` before the j-th."""
        chosen = np.asarray(items, np.intp)
        lengths = self.separated_lengths[chosen]
        places = np.cumsum(lengths) - lengths + self.separator_length
        run = np.insert(self._behind_separators(chosen), places, codes)
        return run[self.separator_length :]

    def _behind_separator(self, item: int) -> Ids:
        # `item` returns Python integers, which make slicing faster.
        return self._tokens[self._starts.item(item) : self._ends.item(item)]

    def _behind_separators(self, chosen: np.ndarray) -> Ids:
        lengths = self.separated_lengths[chosen]
        ends = lengths.cumsum()
        # Token t of the run, in its j-th title, is token t + starts[j] - (ends - lengths)[j] of all.
        index = (self._starts[chosen] - ends + lengths).repeat(lengths)
        index += np.arange(len(index))
        run: Ids = self._tokens[index]
        return run
