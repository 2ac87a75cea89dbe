"""The validation users that probes rank the next item of, and systems that can be asked about any histories of theirs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from delrec_jax.data.splits import Split, drawn_users
from delrec_jax.evaluation.metrics import bootstrap_interval, metrics_of_ranks
from delrec_jax.evaluation.ranking import gather_candidates
from delrec_jax.evaluation.user_ranks import candidate_ranker, rank_users
from delrec_jax.padding import left_padded
from delrec_jax.workdir.language_scorer import LanguageScorer, LanguageSystem
from delrec_jax.workdir.protocols import full_rankers

METRIC = "NDCG@10"

ScorePlaces = Callable[[np.ndarray], Any]
"""Maps places [B] among the ranked users to scores: of the catalogue [B, I], or of the users' candidates [B, C]."""

Asked = Callable[[Sequence[np.ndarray]], ScorePlaces]
"""A system that can be asked about any histories: maps one history per ranked user to scores."""


@dataclass(frozen=True)
class RankedUsers:
    """A draw of the validation users; those with short histories come first.

    Attributes:
      split: what they are drawn from.
      rows: int [U], their places in `split.users("valid")`.
      candidates: int32 [U, C], among which the target is ranked; None = all items that the user has not seen.
      batch_size: users per batch.
    """

    split: Split
    rows: Int[np.ndarray, " U"]
    candidates: Int[np.ndarray, "U C"] | None
    batch_size: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def protocol(self) -> str:
        """The protocol's name, as in rank records."""
        return "full" if self.candidates is None else f"sampled-{self.candidates.shape[1]}"

    @property
    def users(self) -> Int[np.ndarray, " U"]:
        """The users' numbers."""
        found: np.ndarray = self.split.users("valid")[self.rows]
        return found

    @property
    def histories(self) -> list[np.ndarray]:
        """All items before each user's validation target, oldest first."""
        everyone = self.split.histories("valid")
        return [everyone[row] for row in self.rows]

    def ranks(self, scores: ScorePlaces, what: str) -> Float[np.ndarray, " U"]:
        """Returns the rank of each user's target.

        Args:
          scores: of these users.
          what: name of the system, for messages.
        """
        if self.candidates is None:
            whole = full_rankers(self.split, "valid")["full"]
            rank = {"valid": lambda scored, places: whole(scored, self.rows[places])}
        else:
            targets = self.split.target("valid")[self.rows]
            rank = {"valid": candidate_ranker(targets, self.candidates)}
        size = min(self.batch_size, len(self))
        found = rank_users(scores, rank, num_users=len(self), batch_size=size, what=what)
        return found["valid"].rank

    def values(self, scores: ScorePlaces, what: str) -> Float[np.ndarray, " U"]:
        """Returns `METRIC` of each user; the arguments are those of `ranks`."""
        return metric(self.ranks(scores, what))


def metric(ranks: Float[np.ndarray, " U"]) -> Float[np.ndarray, " U"]:
    """Returns `METRIC` of each rank."""
    return metrics_of_ranks(ranks)[METRIC]


def draw_users(
    split: Split,
    count: int,
    *,
    seed: int,
    candidates: Int[np.ndarray, "E C"] | None = None,
    batch_size: int,
) -> RankedUsers:
    """Draws validation users; of two draws with one seed, the smaller is part of the larger.

    Args:
      split: has the validation users.
      count: how many are drawn; all of them if there are fewer.
      seed: seed of the draw.
      candidates: those of each validation user, where the systems cannot rank the catalogue.
      batch_size: users per batch.
    """
    lengths = split.history_lengths("valid")
    rows = drawn_users(np.arange(len(lengths)), count, seed, "probes/users")
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    return RankedUsers(split, rows, None if candidates is None else candidates[rows], batch_size)


def asked_language(scorer: LanguageScorer, system: LanguageSystem, users: RankedUsers) -> Asked:
    """Returns a language system that can be asked about any histories of these users."""
    candidates = users.candidates

    def asked(histories: Sequence[np.ndarray]) -> ScorePlaces:
        """Makes the texts once; the candidates are part of them where texts list candidates."""
        texts = scorer.texts(system, list(histories), candidates)
        if candidates is None:
            return lambda places: scorer.catalogue(system, texts.rows(places))
        return lambda places: scorer.candidates(system, texts.rows(places), candidates[places])

    return asked


def asked_recommender(
    scores: Callable[[np.ndarray], Any], max_length: int, users: RankedUsers
) -> Asked:
    """Returns a conventional recommender that can be asked about any histories of these users.

    Args:
      scores: maps histories [B, L], left-padded with -1, to scores [B, I].
      max_length: number of a history's latest items that it reads.
      users: the users.
    """

    def asked(histories: Sequence[np.ndarray]) -> ScorePlaces:
        """Pads the histories once."""
        length = min(max_length, max(map(len, histories), default=1))
        padded = left_padded(histories, length)
        if users.candidates is None:
            return lambda places: scores(padded[places])
        listed = users.candidates
        return lambda places: gather_candidates(scores(padded[places]), listed[places])

    return asked


def measured(values: Float[np.ndarray, " U"], *, seed: int) -> dict[str, Any]:
    """Returns the mean over users with its bootstrap interval: value, ci_low, ci_high, users."""
    found = bootstrap_interval(values, seed=seed)
    ends = {"ci_low": found.low, "ci_high": found.high}
    return {"value": found.value, **ends, "users": len(values)}


def changed(
    before: Float[np.ndarray, " U"], after: Float[np.ndarray, " U"], *, seed: int
) -> dict[str, Any]:
    """Returns how the mean over users changes, with the bootstrap interval of the paired differences.

    Returns:
      value (of `after`), change, change_low, change_high; relative = change / mean of `before`, None where that is 0; users.
    """
    found, start = bootstrap_interval(after - before, seed=seed), float(before.mean())
    return {
        "value": float(after.mean()),
        "change": found.value,
        "change_low": found.low,
        "change_high": found.high,
        "relative": found.value / start if start else None,
        "users": len(after),
    }
