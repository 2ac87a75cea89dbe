"""How old the titles of a text are, read from the owners of its tokens (`data.read_texts`)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def title_ages(owners: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Returns the number of titles that begin after each token's own title, and -1 outside titles.

    Titles are separated by tokens without an owner.
    """
    before = jnp.pad(owners[:, :-1], ((0, 0), (1, 0)))
    begins = (owners > 0) & (before == 0)
    number = jnp.cumsum(begins, axis=1)  # 1 for the first title
    return jnp.where(owners > 0, number[:, -1:] - number, -1)


def latest_items(owners: Int[Array, "B T"], count: int) -> Int[Array, "B R"]:
    """Returns the items of the `count` latest titles of each text, the latest first; -1 where a text has fewer."""
    ages = title_ages(owners)
    places = ages[:, None, :] == jnp.arange(count)[:, None]  # [B, R, T]
    return jnp.where(places, owners[:, None, :], 0).max(axis=-1) - 1


def shown_items(owners: Int[Array, "B T"], num_items: int) -> Bool[Array, "B I"]:
    """Returns which items' titles each text shows."""
    rows = jnp.arange(owners.shape[0])[:, None]
    return jnp.zeros((owners.shape[0], num_items + 1), bool).at[rows, owners].set(True)[:, 1:]
