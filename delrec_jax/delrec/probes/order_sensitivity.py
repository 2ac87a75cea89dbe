"""Does a recommender use the order of a history? It is asked again with the same items in another order.

Method: "shuffled inference" of Kim et al., "Lost in Sequence: Do Large Language Models Understand Sequential
Recommendation?", KDD 2025: a trained model ranks the same targets after the same items, shuffled. A recommender
that uses order must get worse; one that treats a history as a set does not change at all. They found that language models
hardly change while conventional recommenders do.

Two orders are added to theirs. `reversed` is the same for every seed. `shuffled_read` shuffles the latest
`prompts.max_history` items among themselves: a text shows no others, so that a shuffle of the whole history changes which
items are read and not only their order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from delrec_jax import prng
from delrec_jax.delrec.probes.ranked_users import METRIC, Asked, RankedUsers, changed, metric


def order_sensitivity(
    systems: Mapping[str, Asked], users: RankedUsers, *, max_history: int, seed: int
) -> list[dict[str, Any]]:
    """Returns what each system loses when the order of histories is lost.

    Args:
      systems: the systems by name.
      users: whose targets are ranked.
      max_history: number of a history's latest items that a text shows.
      seed: seed of the shuffles, which depend on it and on the user alone, and of the bootstrap.

    Returns:
      One row per system and order (`true` first), with the fields of `changed` against the true order, and `moved`, the
      share of users whose target has another rank.
    """
    true = users.histories
    orders = reordered(true, users.users, max_history=max_history, seed=seed)
    rows = []
    for system, asked in systems.items():
        before = users.ranks(asked(true), system)
        for order, histories in {"true": true, **orders}.items():
            after = before if order == "true" else users.ranks(asked(histories), system)
            found = changed(metric(before), metric(after), seed=seed)
            moved = float((before != after).mean())
            rows.append(
                {"system": system, "order": order, "metric": METRIC, **found, "moved": moved}
            )
    return rows


def reordered(
    histories: Sequence[Int[np.ndarray, "_"]],
    users: Int[np.ndarray, " U"],
    *,
    max_history: int,
    seed: int,
) -> dict[str, list[np.ndarray]]:
    """Returns the histories in other orders, by the order's name; each has the same items as before.

    `shuffled_read` is left out if no history is longer than `max_history`: it would be `shuffled`.

    Args:
      histories: items, oldest first.
      users: the user of each.
      max_history: number of latest items that a text shows.
      seed: seed of the shuffles.
    """

    def shuffled(history: np.ndarray, user: int) -> np.ndarray:
        return prng.generator(seed, "probes/order", user).permutation(history)

    pairs = [(history, int(user)) for history, user in zip(histories, users, strict=True)]
    orders = {
        "shuffled": [shuffled(history, user) for history, user in pairs],
        "reversed": [history[::-1] for history, _ in pairs],
    }
    if any(len(history) > max_history for history in histories):
        orders["shuffled_read"] = [
            np.concatenate([history[:cut], shuffled(history[cut:], user)])
            for history, user in pairs
            for cut in [max(0, len(history) - max_history)]
        ]
    return orders
