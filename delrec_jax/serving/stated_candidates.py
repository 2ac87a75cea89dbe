"""Candidates that the caller states: a list for each history, of different lengths, whose items are put in order."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from delrec_jax.data.title_tokens import Ids
from delrec_jax.distributed import on_host
from delrec_jax.errors import UserError
from delrec_jax.serving.listing import ListingSystem
from delrec_jax.teachers.best_items import scores_of
from delrec_jax.workdir.systems import System

Rows = Int[np.ndarray, " B"]
Lists = list[tuple[Int[np.ndarray, " h"], Float[np.ndarray, " h"]]]
"""For each history, items and their scores, best first."""


def among(asked: System, candidates: Sequence[Ids], k: int | None) -> Callable[[Rows], Lists]:
    """Returns what orders the candidates of rows, and keeps the best k.

    Raises:
      UserError: a list is longer than the texts of the system can list.
    """
    longest = max(map(len, candidates))
    if isinstance(asked, ListingSystem) and longest > asked.most:
        raise UserError(
            f"candidates: {longest} in one list, but this run's texts list at most candidates.rerank = {asked.most}"
        )

    def found(rows: Rows) -> Lists:
        """The lists of these rows."""
        chosen = [candidates[row] for row in rows]
        lists = []
        for items, values in zip(chosen, _scores(asked, rows, chosen), strict=True):
            best = np.argsort(-values[: len(items)], kind="stable")[:k]
            lists.append((items[best], values[best]))
        return lists

    return found


def _scores(asked: System, rows: Rows, chosen: Sequence[Ids]) -> Sequence[np.ndarray]:
    """The scores of each row's candidates, which more may follow that say nothing."""
    if isinstance(asked, ListingSystem):
        return _listed(asked, rows, chosen)
    return list(_picked(asked, rows, chosen))


def _picked(asked: System, rows: Rows, chosen: Sequence[Ids]) -> np.ndarray:
    """The candidates' scores [B, C] among those of the catalogue."""
    longest = max(map(len, chosen))
    padded = np.stack([np.pad(one, (0, longest - len(one)), mode="edge") for one in chosen])
    return on_host(scores_of(jnp.asarray(asked.scores("test", rows)), padded))


def _listed(asked: ListingSystem, rows: Rows, chosen: Sequence[Ids]) -> list[np.ndarray]:
    """The candidates' scores by texts that list them: lists of one length together, since padding would be read as items."""
    lengths = np.array([len(items) for items in chosen])
    scores: list[np.ndarray] = [np.zeros(0, np.float32)] * len(chosen)
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        filled = filled_batch(places)
        found = asked.among("test", rows[filled], np.stack([chosen[place] for place in filled]))
        for place, values in zip(places, found, strict=False):
            scores[place] = values
    return scores


def filled_batch(rows: Rows) -> Rows:
    """Rows, of which the last is repeated up to the next power of two: few shapes are compiled."""
    size = 1 << (len(rows) - 1).bit_length()
    return np.pad(rows, (0, size - len(rows)), mode="edge")
