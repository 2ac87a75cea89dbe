"""Preference parsing (P2Rec, information reconstruction): the distance of a predicted distribution to the user's own.

The text is data.prompts.preference, the target data.preferences.preference_targets. The paper's loss is `mse`; `kl`
does not fade where a prediction is confident and wrong. Liu et al., arXiv 2406.00333.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from delrec_jax.errors import UserError

KINDS = ("mse", "kl")


def distribution_error(
    logits: Float[Array, "B K"], targets: Float[Array, "B K"], kind: str
) -> Float[Array, "B"]:
    """The error of softmax(logits) at each example.

    Args:
      logits: of the K categories.
      targets: the users' shares; each row sums to 1.
      kind: `mse`, the mean over the categories of the squared difference, or `kl`, KL(target || softmax) in nats with
        0 log 0 = 0.

    Raises:
      UserError: unknown kind.
    """
    if kind == "mse":
        return ((jax.nn.softmax(logits, axis=-1) - targets) ** 2).mean(axis=-1)
    if kind == "kl":
        # log 1 stands in for log 0, whose product with 0 would be NaN.
        log_targets = jnp.log(jnp.where(targets > 0, targets, 1.0))
        return (targets * (log_targets - jax.nn.log_softmax(logits, axis=-1))).sum(axis=-1)
    raise UserError(f"parse.loss is {kind!r}: use {' or '.join(map(repr, KINDS))}")
