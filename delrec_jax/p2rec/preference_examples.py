"""The examples of information reconstruction: a text of some of a user's items, and the shares of their categories.

Text and target are always of the same items: the target is that of the items that the text shows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from delrec_jax.batches import Arrays, batch_type
from delrec_jax.config import ParseConfig
from delrec_jax.data.evaluation_batches import padded_batches
from delrec_jax.data.pipeline import make_buckets
from delrec_jax.data.prompts import Pieces
from delrec_jax.data.title_tokens import Items
from delrec_jax.distributed import on_host
from delrec_jax.p2rec.categories import Categories
from delrec_jax.p2rec.preference_text import UserText, preference_text
from delrec_jax.p2rec.preferences import preference_targets


@batch_type
class PooledTexts:
    """Texts to be pooled; a batch has a leading axis B.

    Attributes:
      ids: int32 [T].
      counted: int32 [T], 1 at the tokens that are pooled.
    """

    ids: Int[Arrays, "*B T"]
    counted: Int[Arrays, "*B T"]


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


def pooled(
    score: Callable[[PooledTexts], Any],
    texts: Sequence[PooledTexts | PreferenceText],
    *,
    batch_size: int,
    longest: int,
) -> Float[np.ndarray, "N ..."]:
    """Returns a function's value for each text, on the host; batches are of texts of like lengths.

    Args:
      score: batches [B, T] -> values [B, ...].
      texts: single ones, [T]; at least one.
      batch_size: texts per batch, at most.
      longest: the largest bucket holds at least this many tokens.
    """
    found, order = [], []
    for batch, places in padded_batches(
        texts, batch_size=min(batch_size, len(texts)), buckets=make_buckets(longest), alike=0
    ):
        values = on_host(score(PooledTexts(ids=batch.ids, counted=batch.counted)))
        found.append(values[: len(places)])
        order.append(places)
    joined: np.ndarray = np.concatenate(found)[np.argsort(np.concatenate(order))]
    return joined
