"""Pre-training loss: the words behind each MASK, predicted at one decoder position.

T5's span corruption emits the words of a masked span one by one. Here every span is a title or an attribute, and
its words are predicted together, as a bag, at the position of the sentinel, which is what the `mean` verbalizer reads.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from delrec_jax.padding import PAD_TOKEN


def bag_loss(
    logits: Float[Array, "B Q V"], answers: Int[Array, "B Q W"]
) -> tuple[Float[Array, "B Q"], Float[Array, "B Q"]]:
    """Cross-entropy with the uniform distribution over the answer's tokens.

    Args:
      logits: logits at each query's position.
      answers: tokens of the answer, padded with 0; a row of zeros is not a query.

    Returns:
      The loss of each query, in nats, and its weight (1 for a query, 0 for padding).
    """
    real = answers != PAD_TOKEN
    # Gathered logits minus the log-partition: the [B, Q, V] log-probabilities are never stored.
    picked = jnp.take_along_axis(logits, answers, axis=-1)  # [B, Q, W]
    log_probabilities = picked - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    count = real.sum(-1)  # [B, Q]
    losses = -(log_probabilities * real).sum(-1) / jnp.maximum(count, 1)
    return losses, (count > 0).astype(jnp.float32)
