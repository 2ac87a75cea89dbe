"""Settings and weights by validation: the NDCG@10 of a system on some of the validation users."""

import numpy as np

from delrec_jax.config import BaselinesConfig
from delrec_jax.data.splits import Split, drawn_users
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.user_ranks import ScoreFn, rank_users
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
        self.split = split

    def __len__(self) -> int:
        return len(self.rows)

    def ndcg(self, scores: ScoreFn, what: str) -> float:
        """Returns the mean NDCG@10 over the whole catalogue without seen items.

        Args:
          scores: maps rows of the validation part to scores [B, I].
          what: name of the system, for messages.
        """
        return mean_ndcg10(scores, self.split, self.rows, what)


def mean_ndcg10(scores: ScoreFn, split: Split, rows: np.ndarray, what: str) -> float:
    """Returns the mean NDCG@10 of validation users over the whole catalogue without seen items.

    Args:
      scores: maps rows of the validation part to scores [B, I].
      split: has the targets.
      rows: the users asked, those with short histories first.
      what: name of the system, for messages.
    """
    found = rank_users(
        scores,
        {"full": full_rankers(split, "valid")["full"]},
        num_users=len(split.users("valid")),
        batch_size=min(BATCH, len(rows)),
        what=what,
        order=rows,
    )
    return float(metrics_of_ranks(found["full"].rank)["NDCG@10"].mean())
