"""Users ranked per second over whole catalogues: scores from hidden states, ranks without the seen items."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Record, milliseconds

from delrec_jax.evaluation.ranking import rank_unseen
from delrec_jax.evaluation.user_ranks import full_ranker, rank_users

_WIDTH, _SEEN = 512, 100


def run(record: Record, tiny: bool) -> None:
    """Measures three sizes of catalogue."""
    for items, users, batch in (
        [(500, 64, 32)]
        if tiny
        else [(1_682, 16_384, 512), (100_000, 8_192, 512), (1_000_000, 2_048, 512)]
    ):
        record.measure(f"{items} items", rates, items, users, batch)


def rates(items: int, users: int, batch: int) -> dict[str, Any]:
    """Users per second as an evaluation ranks them, and milliseconds of the parts of a batch."""
    random = np.random.default_rng(0)
    hidden = jax.random.normal(jax.random.key(0), (users, _WIDTH))
    vectors = jax.random.normal(jax.random.key(1), (items, _WIDTH))
    targets = random.integers(0, items, users, np.int32)
    histories = random.integers(0, items, (users, _SEEN), np.int32)
    score = jax.jit(lambda users, hidden, vectors: hidden[users] @ vectors.T)
    rankers = {"full": full_ranker(targets, histories)}

    def everybody() -> Any:
        return rank_users(
            lambda users: score(users, hidden, vectors),
            rankers,
            num_users=users,
            batch_size=batch,
        )

    everybody()
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        everybody()
        spent.append(time.perf_counter() - start)
    some = np.arange(batch, dtype=np.int32)
    scores = score(some, hidden, vectors)
    asked = jnp.asarray(targets[:batch]), jnp.asarray(histories[:batch])
    return {
        "users/s": users / sorted(spent)[1],
        "batch": batch,
        "scores of a batch: ms": milliseconds(lambda: score(some, hidden, vectors)),
        "ranks of a batch: ms": milliseconds(lambda: rank_unseen(scores, *asked)),
        "rankers' part on the host: ms": milliseconds(
            lambda: np.sort(histories[:batch], axis=1), calls=3, rounds=3
        ),
    }
