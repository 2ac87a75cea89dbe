"""What the teacher expects of a user, as a vector of the language model: what the slots of `distill.prompt=user` are made from.

    guide = unit( sum over the teacher's top h items of softmax(f(S) / tau)_i v_i )

where v_i are the centered unit vectors of the titles. Every teacher can be asked this way, those without states of their own
too, and the language model reads the answer in its own terms. Like the teacher's scores (`residual_tuning`), guides are better
on the positions that the teacher was trained on than on new ones.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import jax
import numpy as np
from jaxtyping import Float, Int

from delrec_jax.config import Experiment
from delrec_jax.language.ranker import Ranker
from delrec_jax.padding import few_lengths, left_padded
from delrec_jax.teachers.compiled import CompiledScores
from delrec_jax.teachers.item_to_item import unit_vectors
from delrec_jax.teachers.list_files import inputs_hash
from delrec_jax.teachers.lists import RowsOf, top_lists
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.workdir.fold_teachers import FoldTeachers, TrainingSource, fold_teachers
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import load_teacher
from delrec_jax.workdir.workspace import Workspace

_BATCH = 256
"""Histories of which the teacher is asked at once; fewer if there are no more."""
_KEPT = 8
"""Sets of histories whose guides are kept: all that stage 1 trains with, and not those of every batch that is ranked."""


class Guides:
    """Makes guides; those of the histories that were asked for last are kept."""

    def __init__(
        self,
        experiment: Experiment,
        data: Data,
        teacher: Callable[[], Teacher],
        folds: Callable[[], FoldTeachers | None],
        titles: Callable[[], Float[np.ndarray, "I D"]],
    ):
        """Asks nobody yet.

        Args:
          experiment: the config.
          data: corpus and split.
          teacher: loads the teacher.
          folds: loads the teachers of groups of users, if there are any.
          titles: loads the vectors of all titles.
        """
        self._experiment, self._data = experiment, data
        self._load_teacher, self._load_folds, self._load_titles = teacher, folds, titles
        self._found: dict[str, Float[np.ndarray, "N D"]] = {}

    @cached_property
    def _teacher(self) -> Teacher:
        return self._load_teacher()

    @cached_property
    def _folds(self) -> FoldTeachers | None:
        return self._load_folds()

    @cached_property
    def _titles(self) -> Float[np.ndarray, "I D"]:
        titles = self._load_titles()
        return unit_vectors(titles - titles.mean(axis=0))

    def __call__(
        self, histories: Sequence[np.ndarray], users: Int[np.ndarray, " N"] | None = None
    ) -> Float[np.ndarray, "N D"]:
        """Returns what the teacher expects after each history, float32, of length 1.

        Args:
          histories: items, oldest first.
          users: whose positions in the training part these are, so that `teacher.folds` matters; None = new histories.

        Raises:
          UserError: a history leaves fewer than `distill.top_h` items open.
        """
        items = np.concatenate([np.zeros(0, np.int32), *histories])
        lengths = np.array(list(map(len, histories)), np.int64)
        key = inputs_hash(items, lengths, users)
        found = self._found.pop(key, None)
        self._found[key] = self._made(histories, users) if found is None else found
        if len(self._found) > _KEPT:
            del self._found[next(iter(self._found))]
        return self._found[key]

    def _made(
        self, histories: Sequence[np.ndarray], users: np.ndarray | None
    ) -> Float[np.ndarray, "N D"]:
        if users is None or self._folds is None:
            return self._asked(self._teacher, histories)
        (found,) = self._folds.gathered(
            users,
            lambda teacher, rows: (self._asked(teacher, [histories[row] for row in rows]),),
        )
        return found

    def _asked(self, teacher: Teacher, histories: Sequence[np.ndarray]) -> Float[np.ndarray, "N D"]:
        from scipy.special import softmax  # imported late: a tenth of a second

        config, reads = self._experiment.distill, self._experiment.teacher.reads

        def padded(rows: np.ndarray, limit: Callable[[int], int]) -> np.ndarray:
            asked = [histories[row] for row in rows]
            return left_padded(asked, limit(few_lengths(max(map(len, asked), default=1))))

        count = len(histories)
        seen = RowsOf(count, lambda rows: padded(rows, lambda longest: longest))
        items, scores = top_lists(
            CompiledScores(teacher),
            RowsOf(count, lambda rows: padded(rows, reads)),
            top_h=config.top_h,
            allowed=self._data.split.known_items(self._data.num_items),
            seen=seen,
            batch_size=min(_BATCH, max(1, count)),
        )
        shares = softmax(scores.astype(np.float64) / config.temperature, axis=1)  # [N, h]
        guides = np.zeros((len(items), self._titles.shape[1]))
        for place in range(items.shape[1]):  # one place at a time: [N, h, D] can be gigabytes
            guides += shares[:, place, None] * self._titles[items[:, place]]
        return unit_vectors(guides).astype(np.float32)


def make_guides(
    ws: Workspace,
    data: Data,
    language: Language,
    source: Callable[[], TrainingSource] | None = None,
) -> Guides | None:
    """Returns what makes guides in this workdir; None if prompts read none.

    Args:
      ws: the workdir.
      data: its corpus.
      language: the language model.
      source: loads what is asked about positions of the training part, if somebody else asks it too; None = it is made.
    """
    if not ws.experiment.distill.guided:
        return None

    def folds() -> FoldTeachers | None:
        found = source() if source else fold_teachers(ws, data)
        return found if isinstance(found, FoldTeachers) else None

    return Guides(
        ws.experiment,
        data,
        lambda: load_teacher(ws, data),
        folds,
        lambda: language.title_vectors,
    )


def guide_shapes(experiment: Experiment, ranker: Ranker, rows: int) -> jax.ShapeDtypeStruct | None:
    """The shape of the guides of a batch; None if prompts read none."""
    if not experiment.distill.guided:
        return None
    return jax.ShapeDtypeStruct((rows, ranker.model.width), np.float32)
