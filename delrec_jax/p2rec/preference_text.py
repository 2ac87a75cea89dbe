"""P2Rec's text: a user's history, from which the encoder reads what they prefer.

The decoder is asked nothing, so the text has no MASK. A single item gives the text of a "virtual user" (information
augmentation). Liu et al., arXiv 2406.00333.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32

from delrec_jax.config import ParseConfig
from delrec_jax.data.prompts import NO_PATTERN, Pieces, assemble, fitting
from delrec_jax.data.templates import HISTORY, Field, Template
from delrec_jax.data.title_tokens import Ids, Items

PREFERENCE = "preference"
"""Name of the template."""

TEMPLATE: Template = (*HISTORY, ". The pattern of the user is :")

_FIELDS = {Field.PATTERN: NO_PATTERN}


@dataclass(frozen=True)
class UserText:
    """A text and what it says.

    Attributes:
      ids: tokens.
      items: the items that the text shows, oldest first: the newest of the history, as many as there is room for.
      in_title: 1 at tokens of a title, 0 at those of the template and at separators.
    """

    ids: Ids
    items: Int32[np.ndarray, "N"]
    in_title: Int32[np.ndarray, "T"]


def preference_pieces(pieces: Pieces, config: ParseConfig, longest: int) -> Pieces:
    """The pieces with the limits of `parse`: histories of up to `longest` items that fit in `parse.max_tokens`."""
    limits = replace(pieces.config, max_tokens=config.max_tokens, max_history=max(1, longest))
    remedy = "or cut long titles (prompts.cut_to_fit=True, prompts.max_title_tokens)"
    return replace(pieces, config=limits, limit=("parse", remedy))


def preference_text(pieces: Pieces, history: Items) -> UserText:
    """The text of a user's history; `prompts.cut_to_fit` cuts its titles where not even the newest item would fit.

    The items are read off the text itself, from the number of tokens that its history takes, so that they are those that the
    text shows, however it was cut.

    Args:
      pieces: tokenized pieces, whose config holds the limits of this text; the oldest items beyond them are dropped.
      history: the user's items, oldest first.

    Raises:
      ValueError: the history is empty.
      UserError: `max_tokens` has no room for the newest item.
    """
    if not len(history):
        raise ValueError("a preference is read from at least one item, and this history is empty")
    return fitting(pieces, lambda cut: _text(cut, history))


def _text(pieces: Pieces, history: Items) -> UserText:
    ids = assemble(pieces, PREFERENCE, _FIELDS, history)
    run = len(ids) - len(assemble(pieces, PREFERENCE, _FIELDS, ()))
    titles, items = pieces.titles, np.asarray(history, np.int32)
    separated, separator = titles.separated_lengths, titles.separator_length
    taken = separated[items[::-1]].cumsum() - separator  # by the newest item, the newest two, ...
    shown = items[len(items) - 1 - int(taken.searchsorted(run)) :]
    # A separator and a title for each item, without the first separator.
    lengths = np.stack([np.full(len(shown), separator), separated[shown] - separator], axis=1)
    marks = np.tile([0, 1], len(shown)).repeat(lengths.ravel())[separator:]
    in_title = np.zeros(len(ids), np.int32)
    start = _before_history(pieces)
    in_title[start : start + run] = marks
    return UserText(ids, shown, in_title)


def _before_history(pieces: Pieces) -> int:
    """The number of tokens before the first title."""
    count = len(pieces.begin)
    for part in pieces.tasks[PREFERENCE, False]:
        if part is Field.HISTORY:
            break
        count += 0 if isinstance(part, Field) else len(part)
    return count
