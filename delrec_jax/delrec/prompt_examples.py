"""Stage 1's examples: the tasks' texts with candidates and target distributions, for three sources of labels.

`teacher`   RPS labels are the teacher's lists for the text's own history.
`shuffled`  the lists are assigned to other users' histories: the control that shows whether distillation is real.
`true`      the text is LSR's and the label is the item that came next: what labels alone achieve.
"""

from collections.abc import Sized
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int

from delrec_jax import prng
from delrec_jax.config import Experiment
from delrec_jax.data.sequential_recommendation import lsr_text
from delrec_jax.data.splits import Split
from delrec_jax.data.title_tokens import Ids
from delrec_jax.delrec.guides import Guides
from delrec_jax.delrec.material import Material, PromptExample, labelled_candidates, one_hot
from delrec_jax.delrec.pattern_simulating import PatternSimulating
from delrec_jax.delrec.prompt_tasks import PROMPT_TASKS, PromptTask, check_example, prompt_tasks
from delrec_jax.delrec.rows import Rows, histories_before, latest_rows, next_items, of_other_users
from delrec_jax.errors import UserError
from delrec_jax.teachers.compiled import CompiledScores
from delrec_jax.teachers.listed import ListedTeacher
from delrec_jax.teachers.lists import ListSettings, TeacherLists, distillation_lists
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.workdir.fold_teachers import FoldTeachers, TrainingSource
from delrec_jax.workdir.language_model import Language, Texts
from delrec_jax.workdir.prepared import Data


@dataclass(frozen=True)
class PromptExamples:
    """Everything the examples of one source are drawn from.

    Attributes:
      source: `teacher`, `shuffled` or `true`.
      material: rows, lists, titles.
      labels: the item that follows each row, for `true`; unused otherwise.
      tasks: the tasks of the config.
    """

    source: str
    material: Material
    labels: np.ndarray
    tasks: tuple[PromptTask, ...]

    def __len__(self) -> int:
        return len(self.material.rows.users)

    @property
    def lengths_stay(self) -> bool:
        """Whether a row's text has the same length in every epoch: neither its task nor the set that it lists is drawn."""
        if self.source == "true":
            return not self.material.pieces.lists_candidates
        return all(getattr(task, "lengths_stay", False) for task, _ in self.asked)

    @cached_property
    def asked(self) -> list[tuple[PromptTask, Sized]]:
        """The tasks that have a share and can be asked of these users, each with its positions."""
        found = [(task, task.positions(self.material)) for task in self._with_share]
        if asked := [(task, positions) for task, positions in found if len(positions)]:
            for task, positions in asked:
                if task.name not in PROMPT_TASKS:
                    rng = np.random.default_rng(0)
                    check_example(
                        task, task.example(self.material, positions, 0, rng), self.material
                    )
            return asked
        raise UserError(
            "distill.tasks: none of the tasks with a share can be asked of these users' histories: give rps a share"
        )

    def unasked(self) -> list[str]:
        """The tasks with a share that none of these users can be asked."""
        asked = {task.name for task, _ in self.asked}
        return [task.name for task in self._with_share if task.name not in asked]

    @property
    def _with_share(self) -> list[PromptTask]:
        shares = self.material.config.distill.tasks
        return [task for task in self.tasks if shares[task.name].share > 0]

    @cached_property
    def _shares(self) -> np.ndarray:
        """Cumulative shares of the tasks; the last is 1."""
        shares = [self.material.config.distill.tasks[task.name].share for task, _ in self.asked]
        return np.cumsum(shares) / sum(shares)

    def example(self, index: int, rng: np.random.Generator) -> PromptExample:
        """One example: of a task drawn by its share, or, for `true`, of the row's next item."""
        if self.source == "true":
            return self.labelled(index, rng)
        drawn = 0
        if len(self.asked) > 1:
            drawn = int(np.searchsorted(self._shares, rng.random(), side="right"))
        task, positions = self.asked[drawn]
        return task.example(self.material, positions, index, rng)

    def labelled(
        self, row: int, rng: np.random.Generator, pattern: Ids | None = None
    ) -> PromptExample:
        """The LSR text of a row, labeled with the item that came next; it takes the place of an RPS text.

        Args:
          row: its number.
          rng: draws the candidates.
          pattern: soft prompt slots, or nothing; None = the slots of training.
        """
        material, label = self.material, int(self.labels[row])
        pattern = material.slots if pattern is None else pattern
        everything = material.train.history(int(material.rows.users[row]))
        candidates = labelled_candidates(material, label, everything, rng)
        text = lsr_text(material.pieces, material.history(row), pattern, candidates)
        return PromptExample(
            ids=text.ids,
            candidates=candidates,
            targets=one_hot(candidates, label),
            task=material.task_number(PatternSimulating.name),
            owners=text.owners,
            guides=material.guide(row),
        )


def make_lists(
    experiment: Experiment,
    split: Split,
    num_items: int,
    rows: Rows,
    teacher: TrainingSource,
    numbers: Int[np.ndarray, " N"] | None = None,
) -> TeacherLists:
    """The teacher's lists for these rows, without items that it never saw or that the user has seen.

    Args:
      experiment: the config.
      split: the corpus.
      num_items: I, of the catalogue.
      rows: N rows of users and ends of their histories.
      teacher: scores the catalogue, or has lists.
      numbers: see `distillation_lists`.
    """
    if isinstance(teacher, FoldTeachers):

        def ask(one: Teacher, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            asked, scores = Rows(rows.users[chosen], rows.ends[chosen]), CompiledScores(one)
            found = make_lists(experiment, split, num_items, asked, scores, numbers=chosen)
            return found.items, found.scores

        return TeacherLists(*teacher.gathered(rows.users, ask))
    settings, allowed = list_settings(experiment), split.known_items(num_items)
    seen = histories_before(split.train, rows.users, rows.ends)
    if isinstance(teacher, ListedTeacher):
        return teacher.distillation_lists(
            rows.users, rows.ends, settings=settings, allowed=allowed, seen=seen
        )
    length = experiment.teacher.reads(int(rows.ends.max(initial=0)))
    # All of one length, as a teacher's scores may differ in their last bits with that of its input.
    histories = histories_before(split.train, rows.users, rows.ends, length)
    return distillation_lists(
        teacher, histories, settings=settings, allowed=allowed, seen=seen, numbers=numbers
    )


def list_settings(experiment: Experiment) -> ListSettings:
    """The lengths of lists, and the seed of their random negatives."""
    config = experiment.distill
    return ListSettings(config.top_h, config.num_candidates, experiment.seed)


def source_rows(experiment: Experiment, split: Split, users: np.ndarray, source: str) -> Rows:
    """The rows of these users' texts."""
    positions = experiment.distill.positions
    return latest_rows(split.train, users, positions, labelled=source == "true")


def make_examples(
    experiment: Experiment,
    data: Data,
    language: Language | Texts,
    users: np.ndarray,
    source: str,
    lists: TeacherLists | None = None,
    *,
    slots: Ids | None = None,
    guides: Guides | None = None,
) -> PromptExamples:
    """The examples of one source for these users.

    Args:
      experiment: the config.
      data: corpus and split.
      language: titles and slots as tokens.
      users: whose training parts are asked about.
      source: `teacher`, `shuffled` or `true`.
      lists: the teacher's, one per row; `true` needs none.
      slots: tokens in place of the soft prompt; None = its slots.
      guides: makes what the teacher expects after a history, for prompts that read it.

    Raises:
      ValueError: there is not one list per row.
    """
    rows = source_rows(experiment, data.split, users, source)
    if lists is None:
        empty = np.zeros((0, experiment.distill.num_candidates))
        lists = TeacherLists(empty.astype(np.int32), empty.astype(np.float32))
    if source == "shuffled":
        order = of_other_users(rows.users, prng.generator(experiment.seed, "distill/shuffle"))
        lists = TeacherLists(lists.items[order], lists.scores[order])
    if source != "true" and len(lists.items) != len(rows.users):
        raise ValueError(f"{len(lists.items)} lists for {len(rows.users)} rows")
    tasks = tuple(prompt_tasks(experiment))
    material = Material(
        train=data.split.train,
        users=users,
        rows=rows,
        lists=lists,
        known=np.flatnonzero(data.split.known_items(data.num_items)),
        pieces=language.pieces,
        slots=language.slots if slots is None else slots,
        tasks=tuple(task.name for task in tasks),
        config=experiment,
    )
    if guides is not None:
        after = [material.history(row) for row in range(len(rows.users))]
        material = replace(material, guides=guides(after, rows.users))
    return PromptExamples(source, material, next_items(data.split.train, rows), tasks)
