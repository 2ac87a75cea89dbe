"""What stage 1's tasks make their examples from, and the type of an example."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from delrec_jax.batches import Arrays, batch_type
from delrec_jax.config import Experiment
from delrec_jax.data.interactions import Interactions
from delrec_jax.data.prompts import Pieces
from delrec_jax.data.read_texts import Text, read_text
from delrec_jax.data.title_tokens import Ids
from delrec_jax.delrec.rows import Rows, label_with_negatives
from delrec_jax.teachers.lists import TeacherLists


@batch_type
class PromptExample:
    """A text of stage 1; a batch has a leading axis B.

    Attributes:
      ids: int32 [T], the text.
      candidates: int32 [C], the items to choose from.
      targets: float32 [C], the distribution to reproduce.
      task: int32 [], the task's index among the config's tasks.
      owners: int32 [T], the item that each token belongs to (`data.read_texts`); None if the verbalizer reads none.
      guides: float32 [D], what the teacher expects after the history (`guides`); None if the prompt reads none.
    """

    ids: Int[Arrays, "*B T"]
    candidates: Int[Arrays, "*B C"]
    targets: Float[Arrays, "*B C"]
    task: Int[Arrays, "*B"]
    owners: Int[Arrays, "*B T"] | None = None
    guides: Float[Arrays, "*B D"] | None = None


@dataclass(frozen=True)
class Material:
    """What the examples of a set of users are made from, for one source of labels.

    Attributes:
      train: the training part of all users.
      users: the users whose texts these are.
      rows: positions in these users' histories, one epoch of stage 1.
      lists: each row's candidates with the teacher's scores; for the control `shuffled`, those of another user's row.
      known: items that occur in the training part; negatives are drawn from these.
      pieces: tokenized titles and templates.
      slots: tokens of the soft prompt.
      tasks: names of the tasks, in the order of their numbers.
      config: the experiment.
      guides: what the teacher expects after each row's history, float32 [N, D]; None if the prompt reads none.
    """

    train: Interactions
    users: Int[np.ndarray, " U"]
    rows: Rows
    lists: TeacherLists
    known: Int[np.ndarray, " K"]
    pieces: Pieces
    slots: Ids
    tasks: tuple[str, ...]
    config: Experiment
    guides: Float[np.ndarray, "N D"] | None = None

    def guide(self, row: int) -> Float[np.ndarray, "D"] | None:
        """What the teacher expects after a row's history."""
        return None if self.guides is None else self.guides[row]

    def history(self, row: int) -> Int[np.ndarray, " L"]:
        """The items that a row's text may show."""
        return self.train.history(int(self.rows.users[row]))[: self.rows.ends[row]]

    def text(self, build: Callable[[Pieces, Ids], Ids], pattern: Ids | None = None) -> Text:
        """The text that `build` makes from (pieces, pattern).

        Args:
          build: makes a text, see `data.read_texts.read_text`.
          pattern: tokens in place of the prompt; None = the slots.
        """
        return read_text(self.pieces, self.slots if pattern is None else pattern, build)

    def task_number(self, name: str) -> np.int32:
        """The number that identifies a task in its examples."""
        return np.int32(self.tasks.index(name))


def labelled_candidates(
    material: Material, label: int, seen: Int[np.ndarray, " L"], rng: np.random.Generator
) -> Int[np.ndarray, " C"]:
    """The label and unseen items, `distill.num_candidates` in total, in random order."""
    count, key = material.config.distill.num_candidates, "distill.num_candidates"
    return label_with_negatives(label, material.known, seen, count, rng, key=key)


def one_hot(candidates: Int[np.ndarray, " C"], label: int) -> Float[np.ndarray, " C"]:
    """One-hot target over the candidates.

    Raises:
      ValueError: the label does not occur exactly once.
    """
    target: Float[np.ndarray, " C"] = (candidates == label).astype(np.float32)
    if target.sum() != 1:
        raise ValueError(f"label {label} occurs {int(target.sum())} times among the candidates")
    return target
