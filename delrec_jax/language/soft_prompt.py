"""The soft prompt: K trainable vectors at reserved positions in the text.

A prompt that knows the user has slots that are, instead of or beside these vectors, a trained linear map of a guide: a vector
that says what the teacher expects of this user (`delrec.guides`). Such a prompt is a mapping:

    slot_k = shared_k + up_k (down^T guide),     down [D, R], up [R, K, D], shared [K, D] (absent in `user`)

The ids `vocab_size .. vocab_size + K - 1` mark the slots. An example stays an array of integers until the
embedding, where slots are replaced by rows of the prompt and all other ids by rows of the frozen table.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.language.token_table import look_up

INITS = ("normal", "vocabulary", "text")
"""How an untrained prompt starts."""


def slot_ids(vocab_size: int, length: int) -> list[int]:
    """Returns the reserved ids of a prompt of `length` slots."""
    return list(range(vocab_size, vocab_size + length))


def embed_with_prompt(
    table: Float[Array, "V D"],
    prompt: Float[Array, "K D"] | Float[Array, "B K D"] | None,
    ids: Int[Array, "B T"],
) -> Float[Array, "B T D"]:
    """Looks ids up in the table, and slot ids in the prompt.

    Args:
      table: the frozen embedding table of the language model.
      prompt: the soft prompt, the same for all texts or one for each; None when no text has slots.
      ids: token ids, slot ids from V on.

    Returns:
      The embedded text; gradients reach `prompt` only through its slots. A slot without a row (no prompt, or one with
      fewer slots) is NaN: ids cannot be checked under jit, and indexing would silently return a wrong row.
    """
    vocab_size = table.shape[0]
    is_slot: Bool[Array, "B T"] = ids >= vocab_size
    words = look_up(table, jnp.minimum(ids, vocab_size - 1))  # [B, T, D]
    if prompt is None:
        return jnp.where(is_slot[..., None], jnp.nan, words)
    slots = jnp.where(is_slot, ids - vocab_size, 0)
    prompt = jnp.asarray(prompt)
    place = (slots,) if prompt.ndim == 2 else (jnp.arange(len(ids))[:, None], slots)
    rows = prompt.at[place].get(mode="fill", fill_value=jnp.nan)  # [B, T, D]
    return jnp.where(is_slot[..., None], rows, words)


def init_prompt(
    kind: str,
    table: Float[Array, "V D"],
    length: int,
    key: jax.Array,
    *,
    text_ids: list[int] | None = None,
) -> Float[Array, "K D"]:
    """Returns an untrained prompt.

    Args:
      kind: `normal` (the table's mean and standard deviation), `vocabulary` (rows of random tokens) or
        `text` (rows of `text_ids`, repeated to the length).
      table: the embedding table that it is used with; the prompt is float32 whatever the table's type.
      length: K.
      key: random key.
      text_ids: tokens of the words to start from, for `text`.

    Raises:
      UserError: unknown kind, `text` without words, or more slots than rows of the table to draw.
    """
    if kind == "normal":
        noise = jax.random.normal(key, (length, table.shape[1]))
        return table.mean() + table.std() * noise
    if kind == "vocabulary":
        if length > table.shape[0]:
            raise UserError(
                f"distill.init is 'vocabulary', but the prompt has {length} slots and the table {table.shape[0]} rows: use "
                "distill.init=normal, or fewer slots (distill.length)"
            )
        chosen = jax.random.choice(key, table.shape[0], (length,), replace=False)
        return table[chosen].astype(jnp.float32)
    if kind == "text":
        if not text_ids:
            raise UserError(
                "distill.init is 'text' but distill.init_text is empty: give it some words"
            )
        return table[jnp.resize(jnp.asarray(text_ids), (length,))].astype(jnp.float32)
    raise UserError(f"distill.init is {kind!r}: use one of {', '.join(INITS)}")


def slot_rows(prompt: Any, guides: Float[Array, "B D"] | None) -> Any:
    """Returns the vectors of the slots: [K, D], or [B, K, D] if they depend on guides; None if there is no prompt.

    Raises:
      ValueError: the prompt reads guides, and none are given.
    """
    if not isinstance(prompt, Mapping):
        return prompt
    if guides is None:
        raise ValueError(
            "this prompt reads what the teacher expects of each user, and was given none"
        )
    said = jnp.einsum("br,rkd->bkd", guides @ prompt["down"], prompt["up"])
    return said + prompt["shared"] if "shared" in prompt else said


def init_guided(
    table: Float[Array, "V D"], length: int, rank: int, key: jax.Array
) -> dict[str, Float[Array, "..."]]:
    """Returns an untrained map from guides of length 1 to slots that are about as large as rows of the table.

    Args:
      table: the embedding table that it is used with.
      length: K.
      rank: R.
      key: random key.
    """
    first, second = jax.random.split(key)
    down = jax.random.normal(first, (table.shape[1], rank))
    up = jax.random.normal(second, (rank, length, table.shape[1]))
    return {"down": down, "up": table.std().astype(jnp.float32) * rank**-0.5 * up}
