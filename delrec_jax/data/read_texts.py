"""Texts with the owner of each token: which item's title it is part of, for verbalizers that weigh titles by age.

A text is assembled twice, from pieces of tokens and from pieces of owners. Both have the same lengths everywhere, so the
second text says of each token of the first whose title it belongs to, whatever was cut or left out.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from delrec_jax.data.prompts import NO_PATTERN, Pieces
from delrec_jax.data.templates import Field
from delrec_jax.data.title_tokens import Ids, TitleTokens


class Text(NamedTuple):
    """A text as a language model reads it.

    Attributes:
      ids: int32 [T].
      owners: int32 [T], 1 + the item whose title the token is part of, 0 outside titles; None if nothing reads them.
    """

    ids: Ids
    owners: Ids | None


def with_owners(pieces: Pieces) -> Pieces:
    """Returns the same pieces, from which `read_text` also makes owners."""
    separator = np.zeros_like(pieces.separator)
    titles = [np.full(len(title), item + 1, np.int32) for item, title in enumerate(pieces.titles)]
    tasks = {
        name: tuple(part if isinstance(part, Field) else np.zeros_like(part) for part in task)
        for name, task in pieces.tasks.items()
    }
    owners = replace(
        pieces,
        titles=TitleTokens(titles, separator, pieces.titles.kept),
        tasks=tasks,
        separator=separator,
        sentinel=0,
        codes=(0,) * len(pieces.codes),
        begin=np.zeros_like(pieces.begin),
        end=np.zeros_like(pieces.end),
    )
    return replace(pieces, owners=owners)


def with_title_slots(pieces: Pieces, slots: Ids) -> Pieces:
    """Returns the same pieces, from which `read_text` makes texts with a slot after each title if these slots are its pattern.

    Args:
      pieces: tokenized pieces.
      slots: int32 [I], the slot of each item; it belongs to the title that it follows.
    """
    slotted = replace(pieces, titles=pieces.titles.followed_by(slots))
    return replace(pieces, slotted=slotted if pieces.owners is None else with_owners(slotted))


def read_text(pieces: Pieces, pattern: Ids, build: Callable[[Pieces, Ids], Ids]) -> Text:
    """Returns the text that `build` makes from (pieces, pattern), and its owners if the pieces have them.

    Args:
      pieces: tokenized pieces.
      pattern: soft slots, words or nothing; they belong to no title. If the pieces have slots of titles, and the pattern
        is these, each stands after its title, and the text has no sentence about a pattern.
      build: makes a text, whose length depends only on the lengths of what it is made from.
    """
    pieces, pattern = with_its_slots(pieces, pattern)
    ids = build(pieces, pattern)
    if pieces.owners is None:
        return Text(ids, None)
    return Text(ids, build(pieces.owners, np.zeros_like(pattern)))


def with_its_slots(pieces: Pieces, pattern: Ids) -> tuple[Pieces, Ids]:
    """Returns the pieces that have this pattern's slots in their titles, and no pattern; others are returned as they are."""
    if pieces.slotted is not None and pieces.slotted.titles[0][-1] in pattern[:1]:
        return pieces.slotted, NO_PATTERN
    return pieces, pattern
