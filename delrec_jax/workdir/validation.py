"""Settings and weights by validation: the NDCG@10 of a system on some of the validation users."""

import numpy as np

from delrec_jax.config import BaselinesConfig
from delrec_jax.data.splits import Split, drawn_users
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.user_ranks import RankFn, ScoreFn, rank_users
from delrec_jax.workdir.protocols import full_rankers

BATCH = 512
"""Users per batch."""


def selecting_rows(rows: np.ndarray, most: int) -> np.ndarray:
    """Returns those rows of validation users that select a step of a teacher, in their order.

    Args:
      rows: all rows, in any order.
      most: `teacher.valid_users`, at most so many, the same ones for every teacher and seed; 0 = all.
    """
    asked = drawn_users(np.arange(len(rows)), most, 0, "teacher/valid_users")
    selecting: np.ndarray = rows[np.isin(rows, asked)]
    return selecting


class Validation:
    """The validation users that settings are chosen by: all of them, or a draw of `baselines.users`.

    Attributes:
      rows: places in `split.users("valid")`, those with short histories first.
    """

    def __init__(self, split: Split, config: BaselinesConfig):
        """Draws the users; the same seed draws the same ones, whatever is validated."""
        lengths = split.history_lengths("valid")
        everyone = np.arange(len(lengths))
        rows = drawn_users(everyone, config.users, config.seed, "baselines/users")
        self.rows = rows[np.argsort(lengths[rows], kind="stable")]
        self.split, self._num_users = split, len(lengths)
        self._rank = full_rankers(split, "valid")["full"]

    def __len__(self) -> int:
        return len(self.rows)

    def ndcg(self, scores: ScoreFn, what: str) -> float:
        """Returns the mean NDCG@10 over the whole catalogue without seen items.

        Args:
          scores: maps rows of the validation part to scores [B, I].
          what: name of the system, for messages.
        """
        return mean_ndcg10(scores, self._rank, num_users=self._num_users, rows=self.rows, what=what)


def mean_ndcg10(
    scores: ScoreFn, rank: RankFn, *, num_users: int, rows: np.ndarray, what: str
) -> float:
    """Returns the mean NDCG@10 of validation users.

    Args:
      scores: maps rows of the validation part to scores [B, I].
      rank: ranks their targets by scores.
      num_users: rows of the validation part.
      rows: the users asked, those with short histories first.
      what: name of the system, for messages.
    """
    found = rank_users(
        scores,
        {"full": rank},
        num_users=num_users,
        batch_size=min(BATCH, len(rows)),
        what=what,
        order=rows,
    )
    return float(metrics_of_ranks(found["full"].rank)["NDCG@10"].mean())
