"""Recommendation Pattern Simulating (DELRec, stage 1): answer as the teacher would.

The text is data.prompts.pattern_simulating. The label is the teacher's top-1 (the reference) or, list-wise,
softmax(f(S) / tau) over the candidates, so that the whole order is distilled and not only its head.
"""

import numpy as np
from jaxtyping import Float

from delrec_jax.errors import UserError


def teacher_target(
    teacher_scores: Float[np.ndarray, "C"], *, kind: str, temperature: float
) -> Float[np.ndarray, "C"]:
    """Target distribution over the candidates.

    Args:
      teacher_scores: the teacher's scores of the candidates.
      kind: `top1` or `listwise`.
      temperature: tau of `listwise`.

    Raises:
      UserError: unknown kind.
    """
    if kind == "top1":
        return (np.arange(len(teacher_scores)) == teacher_scores.argmax()).astype(np.float32)
    if kind == "listwise":
        scaled = teacher_scores.astype(np.float64) / temperature
        exp = np.exp(scaled - scaled.max())
        return (exp / exp.sum()).astype(np.float32)
    raise UserError(f"distill.rps_label is {kind!r}: use 'top1' or 'listwise'")
