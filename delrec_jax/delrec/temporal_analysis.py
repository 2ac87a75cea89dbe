"""Temporal Analysis (TA; DELRec, stage 1): which item came between i_{n-2} and i_n?

A solved example from the same user comes first in the text. The loss is the cross-entropy of the one-hot label i_{n-1}
among candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from delrec_jax.data.prompts import (
    Pieces,
    PromptConfig,
    assemble,
    fitting,
    join_titles,
    list_candidates_if_shown,
)
from delrec_jax.data.templates import CANDIDATES, PATTERN, Field, Template
from delrec_jax.data.title_tokens import Ids, Items
from delrec_jax.delrec.material import Material, PromptExample, labelled_candidates, one_hot


@dataclass(frozen=True)
class GapPositions:
    """Where TA can be asked.

    Attributes:
      users: int64 [U], the users who can be asked.
      ends: for each of them, the lengths of their training part at which they can.
    """

    users: np.ndarray
    ends: Mapping[int, Ids]

    def __len__(self) -> int:
        return len(self.users)


class TemporalAnalysis:
    """The task: a random position in a random user's training part, independent of the row."""

    name = "ta"
    title = "Temporal Analysis (TA)"
    template: Template = (
        "The user has {past} these {plural} in order :",
        Field.EARLIER,
        "; placeholder ;",
        Field.AFTER_EARLIER,
        ". The placeholder is :",
        Field.GAP_EARLIER,
        ". Then :",
        Field.HISTORY,
        "; placeholder ;",
        Field.AFTER,
        *PATTERN,
        *CANDIDATES,
        ". The placeholder is :",
        Field.MASK,
    )

    def positions(self, material: Material) -> GapPositions:
        """Finds them once for all examples; users without any are left out."""
        ends = {
            int(user): ta_ends(material.train.history(int(user)), material.config.prompts)
            for user in material.users
        }
        asked = {user: found for user, found in ends.items() if len(found)}
        return GapPositions(np.array(list(asked), np.int64), asked)

    def example(
        self, material: Material, positions: GapPositions, row: int, rng: np.random.Generator
    ) -> PromptExample:
        """An example of a user drawn uniformly from those who can be asked, at a random position in their training part."""
        user = int(rng.choice(positions.users))
        sequence, ends = material.train.history(user), positions.ends[user]
        end = int(ends[rng.integers(0, len(ends))])
        label = int(sequence[end - 2])
        candidates = labelled_candidates(material, label, sequence, rng)
        text = material.text(
            lambda pieces, pattern: ta_text(
                pieces, sequence[:end], pattern=pattern, candidates=candidates
            )
        )
        return PromptExample(
            ids=text.ids,
            candidates=candidates,
            targets=one_hot(candidates, label),
            task=material.task_number(self.name),
            owners=text.owners,
        )


def ta_text(pieces: Pieces, sequence: Items, *, pattern: Ids, candidates: Items = ()) -> Ids:
    """Tokens of a TA text.

    With a = `prompts.ta_example`: the example shows i_1..i_{a-2}, the gap i_{a-1} and its successor i_a; the query shows
    i_a..i_{n-2} and i_n and asks for i_{n-1}, which occurs nowhere in the text (at the lengths that `ta_ends` gives).

    Args:
      pieces: tokenized pieces.
      sequence: i_1..i_n, at least `ta_min_length(config)` items.
      pattern: soft prompt slots or words.
      candidates: shown when the config says so.

    Raises:
      ValueError: the sequence is too short.
    """
    a = pieces.config.ta_example
    if len(sequence) < ta_min_length(pieces.config):
        raise ValueError(f"TA needs {ta_min_length(pieces.config)} items, not {len(sequence)}")

    def build(pieces: Pieces) -> Ids:
        fields = {
            Field.EARLIER: join_titles(pieces, sequence[: a - 2]),
            Field.GAP_EARLIER: pieces.titles[sequence[a - 2]],
            Field.AFTER_EARLIER: pieces.titles[sequence[a - 1]],
            Field.AFTER: pieces.titles[sequence[-1]],
            Field.PATTERN: pattern,
            Field.CANDIDATES: list_candidates_if_shown(pieces, candidates),
        }
        return assemble(pieces, TemporalAnalysis.name, fields, sequence[a - 1 : -2])

    return fitting(pieces, build)


def ta_min_length(config: PromptConfig) -> int:
    """The fewest items for which TA can be asked: the example, one item before the gap, the gap, its successor."""
    return config.ta_example + 2


def ta_ends(sequence: Items, config: PromptConfig) -> Ids:
    """The lengths n at which TA can be asked of i_1..i_n: n is large enough, and i_{n-1} occurs only once.

    The second condition matters only if a user may have an item twice (`data.repeats=keep`).
    """
    items = np.asarray(sequence)
    ends = np.arange(ta_min_length(config), len(items) + 1, dtype=np.int32)
    if len(set(items.tolist())) == len(items):
        return ends
    return ends[[int((items[:n] == items[n - 2]).sum()) == 1 for n in ends]]
