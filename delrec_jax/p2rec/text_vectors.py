"""Text vectors as a network can use them: centred, of variance 1, and of as many columns as its table.

Pooled embeddings of texts from one template are almost equal: what the template says is a large common component, and
what tells the items apart is a small part of the length. Uncentred, a table of them would give all items nearly the same
score, and its first principal component would be the template.
"""

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

from delrec_jax.errors import UserError

# Vectors of equal texts differ by rounding when they were computed in batches of other lengths.
_ROUNDING = 1e-6


def standardised(vectors: Float[np.ndarray, "I E"]) -> Float[np.ndarray, "I E"]:
    """The vectors less their mean over items, divided by one standard deviation.

    One and not one a column: columns in which the items differ little would else become as loud as the others.

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
            f"augment: the text vectors of all {len(wide)} items are equal, so they cannot tell items apart; look at the "
            "titles of the corpus, and at what the language model was trained on"
        )
    return (centred / spread).astype(np.float32)


def principal(vectors: Float[np.ndarray, "I E"], width: int) -> Float[np.ndarray, "I W"]:
    """The leading principal components, at most `width`, as `standardised` leaves them.

    Not whitened: a component keeps its share of the variance, so that the noise in the last ones stays small. An exact
    decomposition with scikit-learn's rule for signs (a component's largest loading is positive): the same vectors give the
    same components.

    Args:
        vectors: as the language model gave them.
        width: D of the table that they are for.

    Returns:
        float32 [I, min(E, I, width)], the component of largest variance first.

    Raises:
        UserError: as `standardised`.
    """
    centred = standardised(vectors).astype(np.float64)
    components = min(*centred.shape, width)
    return standardised(PCA(components, svd_solver="full").fit_transform(centred))
