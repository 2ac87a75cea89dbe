"""A third task of stage 1, as a fork would bring it: which item did the user have first?"""

import numpy as np

from delrec_jax.data.prompts import assemble, fitting, list_candidates_if_shown
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

        def build(pieces, pattern):
            def shortened(pieces):
                fields = {
                    Field.PATTERN: pattern,
                    Field.CANDIDATES: list_candidates_if_shown(pieces, candidates),
                }
                return assemble(pieces, self.name, fields, history)

            return fitting(pieces, shortened)

        text = material.text(build)
        return PromptExample(
            ids=text.ids,
            candidates=candidates,
            targets=one_hot(candidates, int(history[0])),
            task=material.task_number(self.name),
            owners=text.owners,
            guides=material.guide(row),
        )


FIRST_ITEM = FirstItem()
