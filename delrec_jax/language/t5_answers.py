"""Asks a T5: the encoder reads a text once, and the decoder gives short answers.

For each sentinel of the text the decoder reads two tokens, the start token and the sentinel (T5's own format); the
hidden state at the sentinel is the answer. Longer answers (a title, teacher-forced) begin with the same two tokens. The
answers to one text share its encoding and do not attend to each other.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.language.logical_axes import constrain
from delrec_jax.language.soft_prompt import embed_with_prompt
from delrec_jax.language.t5 import T5

START = 0  # T5 starts its decoder with the padding token


def encoded_texts(
    module: T5,
    params: Any,
    ids: Int[Array, "B T"],
    *,
    prompt: Float[Array, "K D"] | Float[Array, "B K D"] | None = None,
    adapters: Any = None,
    dropout_key: jax.Array | None = None,
) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
    """Returns the encoder's output for each text, and where the text is not padding.

    Args:
      module: the T5.
      params: its base parameters.
      ids: texts, 0 = padding, slot ids from the vocabulary's size on.
      prompt: the soft prompt; must be given when texts have slots (the output is NaN otherwise).
      adapters: AdaLoRA's tree, when the module has adapters.
      dropout_key: given while training with dropout; None = deterministic.

    Returns:
      The encoder's output in the module's compute type, and the mask; outputs at padding are meaningless.
    """
    mask = ids != 0
    embedded = embed_with_prompt(params["shared"]["embedding"], prompt, ids)
    embedded = constrain(embedded, "batch", None, None)
    encoded = module.apply(
        _variables(params, adapters),
        embedded,
        mask,
        dropout_key is None,
        method="encode",
        rngs=_rngs(dropout_key),
    )
    return cast(Array, encoded), mask


def answer_states(
    module: T5,
    params: Any,
    ids: Int[Array, "B T"],
    answers: Int[Array, "B N U"],
    *,
    prompt: Float[Array, "K D"] | Float[Array, "B K D"] | None = None,
    adapters: Any = None,
    dropout_key: jax.Array | None = None,
) -> Float[Array, "B N U D"]:
    """Encodes each text once and decodes all its answers in one batch.

    Args:
      module: the T5.
      params: its base parameters.
      ids: texts, 0 = padding, slot ids from the vocabulary's size on.
      answers: decoder input of N answers per text; tokens after the end of an answer do not affect it.
      prompt: the soft prompt; must be given when texts have slots (the answers are NaN otherwise).
      adapters: AdaLoRA's tree, when the module has adapters.
      dropout_key: given while training with dropout; None = deterministic.

    Returns:
      Hidden states ready for the vocabulary head: the one at position u follows answer tokens 0 .. u.
    """
    encoder_key, decoder_key = (
        (None, None) if dropout_key is None else tuple(jax.random.split(dropout_key))
    )
    encoded, mask = encoded_texts(
        module, params, ids, prompt=prompt, adapters=adapters, dropout_key=encoder_key
    )  # [B, T, D], [B, T]
    hidden = module.apply(
        _variables(params, adapters),
        answers,
        encoded,
        mask,
        dropout_key is None,
        method="decode",
        rngs=_rngs(decoder_key),
    )
    return cast(Array, hidden)


def hidden_at_masks(
    module: T5,
    params: Any,
    ids: Int[Array, "B T"],
    sentinels: Int[Array, "B Q"],
    *,
    prompt: Float[Array, "K D"] | Float[Array, "B K D"] | None = None,
    adapters: Any = None,
    dropout_key: jax.Array | None = None,
) -> Float[Array, "B Q D"]:
    """Encodes the texts and decodes one position for each sentinel.

    Args:
      module: the T5.
      params: its base parameters.
      ids: texts, as `answer_states` takes them.
      sentinels: ids of the sentinels to answer; 0 where a text has fewer.
      prompt: the soft prompt.
      adapters: AdaLoRA's tree.
      dropout_key: given while training with dropout.

    Returns:
      Hidden states ready for the vocabulary head.
    """
    pairs = jnp.stack([jnp.full_like(sentinels, START), sentinels], axis=-1)  # [B, Q, 2]
    hidden = answer_states(
        module, params, ids, pairs, prompt=prompt, adapters=adapters, dropout_key=dropout_key
    )
    return hidden[:, :, 1]  # [B, Q, 2, D] -> [B, Q, D]


def teacher_forced(titles: Int[Array, "B C W"], sentinel: int) -> Int[Array, "B C U"]:
    """Returns the decoder input for titles, U = W + 1: start, sentinel, and the title without its last position."""
    opening = jnp.broadcast_to(jnp.asarray([START, sentinel]), (*titles.shape[:-1], 2))  # [B, C, 2]
    return jnp.concatenate([opening, titles[..., :-1]], axis=-1)  # [B, C, U]


def _variables(params: Any, adapters: Any) -> dict[str, Any]:
    return {"params": params} | ({} if adapters is None else {"adapters": adapters})


def _rngs(key: jax.Array | None) -> dict[str, jax.Array]:
    return {} if key is None else {"dropout": key}
