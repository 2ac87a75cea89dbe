"""P2Rec's text: a user's history, from which the encoder reads what they prefer.

The decoder is asked nothing, so the text has no MASK. A single item gives the text of a "virtual user" (information
augmentation). Liu et al., arXiv 2406.00333.
"""

from dataclasses import replace

from delrec_jax.config import ParseConfig
from delrec_jax.data.prompts import NO_PATTERN, Pieces, assemble
from delrec_jax.data.templates import HISTORY, Field, Template
from delrec_jax.data.title_tokens import Ids, Items

PREFERENCE = "preference"
"""Name of the template."""

TEMPLATE: Template = (*HISTORY, ". The pattern of the user is :")


def preference_pieces(pieces: Pieces, config: ParseConfig, longest: int) -> Pieces:
    """The pieces with the limits of `parse`: histories of up to `longest` items that fit in `parse.max_tokens`."""
    limits = replace(pieces.config, max_tokens=config.max_tokens, max_history=max(1, longest))
    remedy = "or cut long titles (prompts.max_title_tokens)"
    return replace(pieces, config=limits, limit=("parse", remedy))


def preference_text(pieces: Pieces, history: Items) -> Ids:
    """The text of a user's history.

    Args:
      pieces: tokenized pieces, whose config holds the limits of this text; the oldest items beyond them are dropped.
      history: the user's items, oldest first.

    Raises:
      ValueError: the history is empty.
      UserError: `max_tokens` has no room for the newest item.
    """
    if not len(history):
        raise ValueError("a preference is read from at least one item, and this history is empty")
    return assemble(pieces, PREFERENCE, {Field.PATTERN: NO_PATTERN}, history)
