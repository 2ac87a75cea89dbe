"""Stage 2's examples: the text of a history, labeled with the item that came next."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from delrec_jax.config import Experiment, TuneConfig
from delrec_jax.data.interactions import Interactions
from delrec_jax.data.prompts import NO_PATTERN, Pieces
from delrec_jax.data.sequential_recommendation import lsr_text
from delrec_jax.data.title_tokens import Ids
from delrec_jax.delrec.guides import Guides
from delrec_jax.delrec.labelled_texts import LabelledText, ListedText
from delrec_jax.delrec.material import one_hot
from delrec_jax.delrec.rows import Rows, label_with_negatives, latest_rows, next_items
from delrec_jax.padding import left_padded
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data


@dataclass(frozen=True)
class NextItemExamples:
    """Next items in the training part: the history is the user's first `ends` items, the label the item after them.

    Attributes:
      rows: positions.
      labels: int32 [N], the item that follows each.
      known: items that occur in the training part; negatives are drawn from these.
      pattern: the soft prompt's slots, or nothing.
      history_width: H, the length that histories are padded to; 0 = examples have none.
      guides: what the teacher expects after each row's history, float32 [N, D]; None if the prompt reads none.
      folds: int32 [N], as in `LabelledText`; None if there is one recommender.
      before: float32 [N, I], what the model before stage 2 scores each row's text (`anchor`); None = steps compute it.
    """

    rows: Rows
    labels: Int[np.ndarray, " N"]
    known: Int[np.ndarray, " K"]
    train: Interactions
    pieces: Pieces
    pattern: Ids
    config: TuneConfig
    history_width: int = 0
    guides: Float[np.ndarray, "N D"] | None = None
    folds: Int[np.ndarray, " N"] | None = None
    before: Float[np.ndarray, "N I"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths_stay(self) -> bool:
        """Whether a row's text has the same length in every epoch: neither its prompt nor what it lists is drawn."""
        drawn = self.config.loss_over == "candidates" and self.pieces.lists_candidates
        return not (drawn or self.config.curriculum)

    def example(
        self, index: int, rng: np.random.Generator, done: float | None = None
    ) -> LabelledText | ListedText:
        """The text of a row, labeled over the catalogue or among candidates.

        Args:
          index: the row.
          rng: the only source of randomness.
          done: the share of training that is over: the probability that the text has its prompt; None = it has.
        """
        pattern = self.pattern if done is None or rng.random() < done else NO_PATTERN
        if self.config.loss_over == "catalogue":
            return self.labelled(index, pattern)
        label, shown = int(self.labels[index]), self._shown(index)
        history = self.train.history(int(self.rows.users[index]))
        count = self.config.num_candidates
        candidates = label_with_negatives(
            label, self.known, history, count, rng, key="tune.num_candidates"
        )
        ids, owners = lsr_text(self.pieces, shown, pattern, candidates)
        targets = one_hot(candidates, label)
        more = self._beside_text(index)
        return ListedText(ids=ids, candidates=candidates, targets=targets, owners=owners, **more)

    def labelled(self, index: int, pattern: Ids) -> LabelledText:
        """The text of a row with this pattern, labeled over the catalogue; nothing about it is drawn."""
        ids, owners = lsr_text(self.pieces, self._shown(index), pattern)
        return LabelledText(
            ids=ids,
            label=np.int32(self.labels[index]),
            owners=owners,
            before=None if self.before is None else self.before[index],
            **self._beside_text(index),
        )

    def _shown(self, index: int) -> np.ndarray:
        history = self.train.history(int(self.rows.users[index]))
        return history[: self.rows.ends[index]]

    def _beside_text(self, index: int) -> dict[str, Any]:
        width = self.history_width
        return {
            "history": left_padded([self._shown(index)], width)[0] if width else None,
            "guides": None if self.guides is None else self.guides[index],
            "folds": None if self.folds is None else self.folds[index],
        }


def next_item_examples(
    experiment: Experiment,
    data: Data,
    language: Language,
    *,
    pattern: Ids,
    guides: Guides | None = None,
    fold_of: Int[np.ndarray, " U"] | None = None,
) -> NextItemExamples:
    """The examples of the training users' latest labels, at most `tune.positions` per user, with this pattern in the texts."""
    train, users = data.split.train, data.split.training_users
    rows = latest_rows(train, users, experiment.tune.positions, labelled=True)
    longest = int(rows.ends.max(initial=0))
    longest = max(longest, experiment.teacher.reads(longest))
    pairs = zip(rows.users, rows.ends, strict=True)
    after = [train.history(int(user))[:end] for user, end in pairs] if guides else []
    return NextItemExamples(
        rows=rows,
        labels=next_items(train, rows),
        known=np.flatnonzero(data.split.known_items(data.num_items)),
        train=train,
        pieces=language.pieces,
        pattern=pattern,
        config=experiment.tune,
        history_width=longest if experiment.tune.beside else 0,
        guides=guides(after, rows.users) if guides else None,
        folds=None if fold_of is None else fold_of[rows.users],
    )
