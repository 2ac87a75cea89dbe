"""LLM-based Sequential Recommendation (LSR): the paper's text that asks for a user's next item, in stage 2 and in evaluation.

It has the soft prompt P (PATTERN) frozen in it, where stage 2 trains and where items are ranked; method.md, stage 2. How a
text is put together is in `prompts`, what a language model reads of it in `read_texts`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from delrec_jax.data.prompts import Pieces, assemble, fitting, list_candidates_if_shown
from delrec_jax.data.read_texts import Text, read_text, with_its_slots
from delrec_jax.data.templates import CANDIDATES, HISTORY, Field, Template
from delrec_jax.data.title_tokens import Ids, Items

LSR = "lsr"
"""The name of its template among those of all tasks (`Pieces.tasks`)."""

LSR_TEMPLATE: Template = (
    *HISTORY,
    ". Refer to the recommendation pattern of the {teacher} model :",
    Field.PATTERN,
    *CANDIDATES,
    ". The next {noun} the user will {verb} is :",
    Field.MASK,
)


def lsr_ids(pieces: Pieces, history: Items, *, pattern: Ids, candidates: Items = ()) -> Ids:
    """Returns the tokens of the text, without owners.

    Args:
      pieces: tokenized pieces.
      history: items, oldest first.
      pattern: soft slots, words or nothing.
      candidates: the candidate set, if texts list it.

    Raises:
      UserError: the text is too long.
    """

    def build(pieces: Pieces) -> Ids:
        shown = list_candidates_if_shown(pieces, candidates)
        fields = {Field.PATTERN: pattern, Field.CANDIDATES: shown}
        return assemble(pieces, LSR, fields, history)

    return fitting(pieces, build)


def lsr_text(pieces: Pieces, history: Items, pattern: Ids, candidates: Items = ()) -> Text:
    """Returns the text of stage 2 and of evaluation with its owners."""
    return read_text(
        pieces,
        pattern,
        lambda pieces, pattern: lsr_ids(pieces, history, pattern=pattern, candidates=candidates),
    )


def lsr_lengths(
    pieces: Pieces,
    histories: Sequence[np.ndarray],
    pattern: Ids,
    candidates: Sequence[Items] | np.ndarray | None = None,
) -> Int64[np.ndarray, "N"]:
    """Returns how many tokens the `lsr_text` of each history has, for a tenth of what it takes to make the texts.

    Args:
      pieces: tokenized pieces.
      histories: items, oldest first.
      pattern: as in `read_text`.
      candidates: those of each history, if the texts list them; None = they list none.

    Raises:
      UserError: a text is too long.
    """
    shown, slots = with_its_slots(pieces, pattern)
    titles, config = shown.titles, shown.config
    found = np.zeros(len(histories), np.int64)
    fixed = len(lsr_ids(shown, (), pattern=slots))
    for row, history in enumerate(histories):
        listed = () if candidates is None else candidates[row]
        around = fixed
        if len(listed):
            codes = len(listed) if shown.codes else 0
            around += codes + titles.separated_lengths[listed].sum() - titles.separator_length
        # The first title shown has no separator before it.
        newest = history[max(0, len(history) - config.max_history) :]
        whole = around + titles.separated_lengths[newest].sum() - titles.separator_length
        if len(newest) and whole <= config.max_tokens:
            found[row] = whole
        else:  # how much of the history fits, if anything does, is for the text to say
            found[row] = len(lsr_text(pieces, history, pattern, listed).ids)
    return found
