"""Temporal Analysis (DELRec, stage 1): name the item between i_{n-2} and i_n among candidates.

The text is data.prompts.temporal_analysis; the loss is the cross-entropy of the one-hot label i_{n-1}.
"""

import numpy as np
from jaxtyping import Float, Int32


def candidate_target(candidates: Int32[np.ndarray, "C"], label: int) -> Float[np.ndarray, "C"]:
    """One-hot target over the candidates.

    Raises:
      ValueError: the label is not there exactly once.
    """
    target = (candidates == label).astype(np.float32)
    if target.sum() != 1:
        raise ValueError(f"label {label} stands {int(target.sum())} times among the candidates")
    return target
