"""The examples of information reconstruction: a text of some of a user's items, and the shares of their categories.

Text and target are always of the same items: the target is that of the items that the text shows.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from delrec_jax.batches import Arrays, batch_type
from delrec_jax.config import ParseConfig
from delrec_jax.data.pipeline import bucket_length, make_buckets, pad_texts
from delrec_jax.data.prompts import Pieces
from delrec_jax.data.title_tokens import Items
from delrec_jax.p2rec.categories import Categories
from delrec_jax.p2rec.preference_text import UserText, preference_text
from delrec_jax.p2rec.preferences import preference_targets


@batch_type
class PooledTexts:
    """Texts to be pooled.

    Attributes:
      ids: int32 [B, T].
      counted: int32 [B, T], 1 at the tokens that are pooled.
    """

    ids: Int[Arrays, "B T"]
    counted: Int[Arrays, "B T"]


@batch_type
class PreferenceText:
    """A user's text; a batch has a leading axis B.

    Attributes:
      ids: int32 [T].
      counted: int32 [T], 1 at the tokens that are pooled.
      targets: float32 [K], the shares of the categories among the items that the text shows.
    """

    ids: Int[Arrays, "*B T"]
    counted: Int[Arrays, "*B T"]
    targets: Float[Arrays, "*B K"]


class PreferenceExamples:
    """Makes examples from items, under one grouping."""

    def __init__(self, pieces: Pieces, config: ParseConfig, categories: Categories):
        """Keeps what texts and targets are made of.

        Args:
          pieces: from `preference_pieces`.
          config: what is pooled, and how often a part of a history is drawn.
          categories: the grouping that targets are about.
        """
        self._pieces, self._config, self._categories = pieces, config, categories

    def of(self, history: Items) -> PreferenceText:
        """The example of all items of a history that the text has room for."""
        text = preference_text(self._pieces, history)
        (target,) = preference_targets(
            [text.items], self._categories.of_item, self._categories.count
        )
        return PreferenceText(
            ids=text.ids, counted=counted_tokens(text, self._config), targets=target
        )

    def drawn(self, history: Items, rng: np.random.Generator) -> PreferenceText:
        """The example of a history, or (`parse.sub_histories` of the draws) of a random part of it."""
        return self.of(drawn_history(history, self._config.sub_histories, rng))


def drawn_history(history: Items, share: float, rng: np.random.Generator) -> Items:
    """The history, or with probability `share` a random run of consecutive items of it.

    The logarithm of the run's length is uniform, so that runs of 1, of 2 to 3, of 4 to 7 items are about equally frequent, and
    its place is uniform.
    """
    if rng.random() >= share:
        return history
    count = len(history)
    length = min(count, int(np.exp(rng.uniform(0, np.log(count + 1)))))
    start = int(rng.integers(count - length + 1))
    return history[start : start + length]


def counted_tokens(text: UserText, config: ParseConfig) -> Int[np.ndarray, " T"]:
    """Which tokens of a text are pooled under `parse.pool`: int32, 1 or 0."""
    return text.in_title if config.pool == "titles" else np.ones_like(text.in_title)


def padded(
    ids: Sequence[np.ndarray], counted: Sequence[np.ndarray], *, longest: int
) -> PooledTexts:
    """Stacks texts for evaluation, in one bucket.

    Args:
      ids: tokens of each text.
      counted: for each text, which of its tokens are pooled.
      longest: the largest bucket holds at least this many tokens.
    """
    length = bucket_length(max(map(len, ids)), make_buckets(longest))
    return PooledTexts(ids=pad_texts(ids, length), counted=pad_texts(counted, length))
