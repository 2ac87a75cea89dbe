"""The scores that `tune.anchor` holds on to, those of the model before stage 2: computed once per text, not once per step.

The model before stage 2 is frozen and drops nothing out, and a row's text is the same in every epoch, so its scores depend on
the row alone. They are computed before the first step, text by text in the rows' order: so a resumed run has the same bits.
Against scores that are computed in the step they differ by rounding, as a text may be padded to another length there. `delrec
plan` counts a step that computes them, which needs more memory.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from delrec_jax.config import TuneConfig
from delrec_jax.data.pipeline import bucket_length, collate
from delrec_jax.delrec.next_item_examples import NextItemExamples
from delrec_jax.language.logical_axes import READOUT_BEFORE
from delrec_jax.language.ranker import Ranker
from delrec_jax.training.sharding import Layout
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.language_scorer import AskedTexts, catalogue_scores

MOST_BYTES = 2 << 30
"""Host memory that the stored scores of one training may take, in each process: 4 bytes per row and item."""

_READ = ("params", "vectors", "prompt")


def worth_keeping(config: TuneConfig, *, rows: int, items: int) -> bool:
    """Returns whether scores are computed once and stored, or else by every step for its own texts.

    They are stored if texts come more than once, if they stay the same (with `tune.curriculum` they lose their prompt at
    random), and if they fit in `MOST_BYTES`.

    Args:
      config: stage 2's settings.
      rows: number of texts.
      items: number of items that each is scored for.
    """
    repeats = config.loop.steps * config.batch_size > rows
    fits = 4 * rows * items <= MOST_BYTES
    return config.anchor > 0 and repeats and fits and not config.curriculum


class ScoresBefore:
    """Scores texts with the model before stage 2, for all trainings of a stage; compiled once per length of texts."""

    def __init__(self, ranker: Ranker, layout: Layout, *, batch_size: int, buckets: Sequence[int]):
        """Compiles nothing yet.

        Args:
          ranker: scores texts.
          layout: how the language model is placed on the devices.
          batch_size: texts per pass.
          buckets: lengths that texts are padded to, ascending.
        """
        self._score = EvalStep(catalogue_scores(ranker), layout)
        self._batch_size, self._buckets = batch_size, buckets

    def __call__(self, examples: NextItemExamples, frozen: Any) -> Float[np.ndarray, "N I"]:
        """The scores of all items for the text of every row, float32, in every process.

        Args:
          examples: stage 2's rows.
          frozen: what the model before stage 2 consists of, as the step gets it.
        """
        texts = [examples.labelled(row, examples.pattern) for row in range(len(examples))]
        lengths = np.array([bucket_length(len(text.ids), self._buckets) for text in texts])
        held = {name: frozen[name] for name in _READ} | {"readout": frozen.get(READOUT_BEFORE)}
        scores: np.ndarray | None = None
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            batch = collate([texts[row] for row in rows], (int(length),))
            asked = AskedTexts(ids=batch.ids, owners=batch.owners, guides=batch.guides)
            found = self._score.in_batches(held, asked, self._batch_size)
            if scores is None:
                scores = np.empty((len(texts), found.shape[1]), np.float32)
            scores[rows] = found
        assert scores is not None  # there is a label to learn from
        return scores
