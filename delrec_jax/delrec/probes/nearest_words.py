"""Which words are the slots nearest to? A soft prompt need not be near any.

Method: the rows of the token table with the highest cosine to each slot, as Lester et al. ("The Power of Scale for
Parameter-Efficient Prompt Tuning", EMNLP 2021, section 7) read their prompts. Nearest words mean nothing if any vector has
words as near, so two controls stand beside them: random directions (a cosine does not depend on the norm, so these are
random vectors of the slot's norm too), and the same slot before training, which says what training added; a prompt that
begins as words (`distill.init=vocabulary` or `text`) is near them for that reason alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from delrec_jax import prng
from delrec_jax.teachers.item_to_item import unit_vectors

COUNT = 5
"""Words per slot."""

DRAWS = 200
"""Random directions of the control."""

_CHANCE = 0.95


def nearest_words(
    slots: Float[np.ndarray, "K D"],
    start: Float[np.ndarray, "K D"],
    table: Float[np.ndarray, "V D"],
    word: Callable[[int], str],
    *,
    seed: int,
) -> dict[str, Any]:
    """Returns the words nearest to each slot, and how near words are to random directions.

    Args:
      slots: the trained prompt.
      start: the same prompt before training.
      table: one row per token.
      word: the text of a token.
      seed: seed of the random directions.

    Returns:
      slots: one row per slot, with `words` (text and cosine, the nearest first), `norm`, and `start`, the cosine of the
        untrained slot with the word nearest to it.
      random: of `draws` random directions, the `mean` cosine with the nearest word, and its quantile `p95`.
      tokens: V.
    """
    found, cosines = _nearest(slots, table, COUNT)
    before = _nearest(start, table, 1)[1][:, 0]
    directions = prng.generator(seed, "probes/directions").normal(size=(DRAWS, table.shape[1]))
    chance = _nearest(directions, table, 1)[1][:, 0]
    rows = [
        {
            "slot": slot,
            "words": [
                {"text": word(int(token)), "cosine": float(cosine)}
                for token, cosine in zip(found[slot], cosines[slot], strict=True)
            ],
            "norm": float(np.linalg.norm(slots[slot])),
            "start": float(before[slot]),
        }
        for slot in range(len(slots))
    ]
    random = {"draws": DRAWS, "mean": float(chance.mean())}
    random["p95"] = float(np.quantile(chance, _CHANCE))
    return {"slots": rows, "random": random, "tokens": len(table)}


def cosine_table(
    a: Float[np.ndarray, "K D"], b: Float[np.ndarray, "V D"]
) -> Float[np.ndarray, "K V"]:
    """Returns the cosine of each row of `a` with each row of `b`; 0 with a row of zeros."""
    wide = [unit_vectors(np.asarray(rows, np.float64)) for rows in (a, b)]
    return np.asarray(wide[0] @ wide[1].T)


def _nearest(
    slots: np.ndarray, table: np.ndarray, count: int
) -> tuple[Int[np.ndarray, "K N"], Float[np.ndarray, "K N"]]:
    """The tokens nearest to each slot, nearest first, and their cosines."""
    cosines = cosine_table(slots, table)
    found = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return found, np.take_along_axis(cosines, found, axis=1)
