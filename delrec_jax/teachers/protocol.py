"""What every teacher can do, and the loss that they train with.

A teacher is a conventional sequential recommender: it scores the whole catalogue for a
history, also for users whom it never saw in training. Everything after it (lists,
ranking, distillation) knows only this protocol, so that a new teacher is one new file.
"""

from collections.abc import Callable
from typing import Protocol

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

PADDING = -1
"""The index of padding and of unknown items; item indices are 0..I-1."""

ScoreFn = Callable[[Int[Array, "B L"]], Float[Array, "B I"]]
"""Histories to scores: pure, so that it can be compiled and batched by its caller."""


class Teacher(Protocol):
    """A trained recommender. Its `scores` is pure and can be passed on as a `ScoreFn`."""

    def scores(self, histories: Int[Array, "B L"]) -> Float[Array, "B I"]:
        """Scores the whole catalogue after each history; higher is better.

        Args:
            histories: item indices, left-padded with -1, most recent item last. Rows
                need not belong to users of the training part.

        Returns:
            Finite scores, comparable within a row only.
        """
        ...


def next_item_cross_entropy(
    logits: Float[Array, "... I"], labels: Int[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The cross-entropy of the next item over the whole catalogue, at every position.

    Args:
        logits: scores of all items, any leading axes.
        labels: the item that came next; -1 where there is none.

    Returns:
        `(losses, weights)` in nats, both of the shape of `labels`; loss and weight are 0
        where the label is -1, so the mean over labels is `losses.sum() / weights.sum()`.
    """
    known = labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.where(known, labels, 0)
    )
    return jnp.where(known, losses, 0.0), known.astype(jnp.float32)
