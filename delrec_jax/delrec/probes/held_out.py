"""The held-out users whose agreement with the teacher `distill` reports, to be asked with other prompts."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from delrec_jax.data.splits import drawn_users
from delrec_jax.delrec.agreement import (
    Exam,
    Reader,
    Reading,
    agreement_rows,
    make_exam,
    means_by_user,
)
from delrec_jax.delrec.distill import teacher_lists
from delrec_jax.delrec.guides import Guides
from delrec_jax.delrec.prompt_examples import make_examples
from delrec_jax.delrec.rows import user_parts
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.fold_teachers import training_source
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageSystem, candidate_scores
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace


class HeldOutUsers:
    """Users whose training histories no prompt was trained or selected by, with the teacher's lists for them.

    Attributes:
      users: int [N], the user of each text.
    """

    def __init__(self, ws: Workspace, data: Data, language: Language, guides: Guides | None):
        """Makes the texts that `distill` reported on, from the lists that it stored."""
        self._seed = ws.experiment.seed
        config = ws.experiment.distill
        users = user_parts(data.split.training_users, config, self._seed)["heldout"]
        source = cache(lambda: training_source(ws, data))
        lists = teacher_lists(ws, data, users, "heldout", source)
        self._examples = make_examples(
            ws.experiment, data, language, users, "teacher", lists, guides=guides
        )
        self.users = self._examples.material.rows.users
        scores = EvalStep(candidate_scores(language.ranker), language.layout)
        self._reader = Reader(ws.experiment, language, scores)
        self._exams: dict[bytes, Exam] = {}

    def some(self, count: int) -> Bool[np.ndarray, " N"]:
        """Returns which texts belong to `count` users, drawn by the run's seed; to all if there are fewer."""
        drawn = drawn_users(np.unique(self.users), count, self._seed, "probes/heldout")
        return np.isin(self.users, drawn)

    def reading(
        self, system: LanguageSystem, texts: Bool[np.ndarray, " N"] | None = None
    ) -> Reading:
        """Puts the questions to the language model with a system's pattern, prompt and readout; adapters are not used.

        Args:
          system: the system.
          texts: which questions; None = all.
        """
        key = system.pattern.tobytes()
        if key not in self._exams:
            self._exams[key] = make_exam(self._examples, system.pattern)
        exam = self._exams[key]
        if texts is not None:
            chosen = [exam.examples[place] for place in np.flatnonzero(texts)]
            exam = Exam(chosen, exam.labels[texts], exam.targets[texts])
        return self._reader.read(system.prompt, system.readout, exam)

    def agreement(
        self, system: LanguageSystem, texts: Bool[np.ndarray, " N"] | None = None
    ) -> Float[np.ndarray, " U"]:
        """Returns each user's mean top-1 agreement with the teacher; the arguments are those of `reading`."""
        values = self.reading(system, texts).agreement
        users = self.users if texts is None else self.users[texts]
        return means_by_user(values, users)


def teacher_agreement(
    stored: Path, heldout: HeldOutUsers, true: LanguageSystem | None, *, seed: int
) -> list[dict[str, Any]]:
    """Does the prompted language model answer as the teacher does? The rows of `distill`, and those of the prompt `true`.

    Method: top-1 agreement and Kendall's tau with the teacher's lists, as stage 1 of DELRec trains for it. The controls are
    the untrained prompt, the prompt of a shuffled teacher, and the prompt that was trained with the items that came next.

    Args:
      stored: `agreement.json` of `distill`, whose values are not computed again.
      heldout: the users that it reports on.
      true: the language model with the prompt `true`; None if stage 1 did not train it.
      seed: seed of the bootstrap.

    Returns:
      Rows as `agreement.agreement_rows` gives them, those of `true` last.
    """
    rows: list[dict[str, Any]] = read_json(stored)
    if true is None:
        return rows
    return rows + agreement_rows("true", heldout.reading(true), heldout.users, seed=seed)
