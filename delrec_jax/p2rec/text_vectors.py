"""Text vectors in a form that a network can use: centered, with variance 1, and no wider than its item table.

Pooled embeddings of texts from one template are almost equal: the template adds a large common component, and only a small
part of the length distinguishes the items. Without centering, a table of them would give all items nearly the same score,
and its first principal component would be the template.
"""

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

from delrec_jax.errors import UserError

# Vectors of equal texts differ by rounding if they were computed in batches of different lengths.
_ROUNDING = 1e-6


def standardised(vectors: Float[np.ndarray, "I E"]) -> Float[np.ndarray, "I E"]:
    """The vectors minus their mean over items, divided by one standard deviation for all columns.

    One standard deviation per column would amplify columns in which the items hardly differ.

    Returns:
        float32; every column has mean 0, and all numbers together have variance 1.

    Raises:
        UserError: a vector is not finite, or all are equal.
    """
    wide = np.asarray(vectors, np.float64)
    finite = np.isfinite(wide).all(axis=1)
    if not finite.all():
        raise UserError(
            f"augment: the text vectors of {(~finite).sum()} of {len(wide)} items are not finite (the first is item "
            f"{finite.argmin()}): the language model diverged; lower parse.optimizer.learning_rate and run parse again"
        )
    centred = wide - wide.mean(axis=0)
    spread = centred.std()
    if spread <= _ROUNDING * np.abs(wide).max():
        raise UserError(
            f"augment: the text vectors of all {len(wide)} items are equal, so they cannot distinguish the items; look at "
            "the titles of the corpus, and at what the language model was trained on"
        )
    scaled: Float[np.ndarray, "I E"] = (centred / spread).astype(np.float32)
    return scaled


def principal(vectors: Float[np.ndarray, "I E"], width: int) -> Float[np.ndarray, "I W"]:
    """The leading principal components, at most `width`, centered and scaled by `standardised`.

    They are not whitened: each component keeps its share of the variance, so the noise in the last ones stays small. The
    decomposition is exact and follows scikit-learn's rule for signs (a component's largest loading is positive), so the same
    vectors give the same components.

    Args:
        vectors: the embeddings from the language model.
        width: D of the item table that they are meant for.

    Returns:
        float32 [I, min(E, I, width)], the component with the largest variance first.

    Raises:
        UserError: as `standardised`.
    """
    centred = standardised(vectors).astype(np.float64)
    components = min(*centred.shape, width)
    return standardised(PCA(components, svd_solver="full").fit_transform(centred))
