"""A third task of stage 1, as a fork would bring it: which item did the user have first?"""

import numpy as np

from delrec_jax.data.prompts import assemble, list_candidates_if_shown
from delrec_jax.data.templates import CANDIDATES, HISTORY, PATTERN, Field
from delrec_jax.delrec.material import PromptExample, labelled_candidates, one_hot


class FirstItem:
    """Asked of every row with a longer history than the text shows, so that the answer is not in it."""

    name = "first"
    title = "First item"
    template = (*HISTORY, *PATTERN, *CANDIDATES, ". The first of all {plural} was :", Field.MASK)

    def positions(self, material):
        """The rows."""
        shown = material.config.prompts.max_history
        return np.flatnonzero(material.rows.ends > shown)

    def example(self, material, positions, row, rng):
        """The text of a random one of them."""
        row = int(rng.choice(positions))
        history = material.history(row)
        candidates = labelled_candidates(material, int(history[0]), history, rng)
        fields = {
            Field.PATTERN: material.slots,
            Field.CANDIDATES: list_candidates_if_shown(material.pieces, candidates),
        }
        return PromptExample(
            ids=assemble(material.pieces, self.name, fields, history),
            candidates=candidates,
            targets=one_hot(candidates, int(history[0])),
            task=material.task_number(self.name),
        )


FIRST_ITEM = FirstItem()
