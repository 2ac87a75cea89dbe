"""Text vectors in a form that a network can use: centered, with variance 1, and no wider than its item table.

Pooled embeddings of texts from one template are almost equal: the template adds a large common component, and only a small
part of the length distinguishes the items. Without centering, a table of them would give all items nearly the same score,
and its first principal component would be the template.
"""

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

from delrec_jax import prng
from delrec_jax.errors import UserError

WHITENING_RIDGE = 0.1
"""Lambda of `whitened`, as a share of the mean squared singular value: a component with a tenth of the mean variance counts
as sqrt(1/2), larger ones approach 1, and smaller ones, mostly noise, keep falling with their singular value."""

# Vectors of equal texts differ by rounding if they were computed in batches of different lengths.
_ROUNDING = 1e-6


def unit_variance(vectors: Float[np.ndarray, "I E"]) -> Float[np.ndarray, "I E"]:
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


def principal(
    vectors: Float[np.ndarray, "I E"], width: int, form: str = "pca"
) -> Float[np.ndarray, "I W"]:
    """The leading principal components, at most `width`, centered and scaled by `unit_variance`.

    With E = U S V' of the centered vectors, the result is

        pca            U S: each component keeps its share of the variance, so the noise in the last ones stays small
        half_whitened  U S^(1/2): between the two others
        whitened       U sqrt(S^2 / (S^2 + lambda)), as in LLMInit: all components but the smallest have about the same
                       variance (lambda: `WHITENING_RIDGE` times the mean of S^2 over all components)

    The decomposition is exact and follows scikit-learn's rule for signs (a component's largest loading is positive), so the
    same vectors give the same components.

    Args:
      vectors: the embeddings from the language model.
      width: D of the item table that they are meant for.
      form: one of these.

    Returns:
      float32 [I, min(E, I, width)], the component with the largest variance first.

    Raises:
      UserError: as `unit_variance`.
    """
    centred = unit_variance(vectors).astype(np.float64)
    components = min(*centred.shape, width)
    fitted = PCA(components, svd_solver="full")
    found = fitted.fit_transform(centred)  # U S
    if form == "half_whitened":
        found = found / np.sqrt(np.maximum(fitted.singular_values_, 1e-12))
    if form == "whitened":
        ridge = WHITENING_RIDGE * (centred**2).sum() / min(centred.shape)
        found = found / np.sqrt(fitted.singular_values_**2 + ridge)
    return unit_variance(found)


def same_spectrum(vectors: Float[np.ndarray, "I E"], seed: int) -> Float[np.ndarray, "I E"]:
    """Random vectors with the singular values of these: what any vectors of this spectrum do that say nothing about an item.

    With E = U S V' of the centered vectors the result is Q S V', where Q is a random orthonormal basis of centered columns. So
    the columns have the same covariance, and which item has which vector is chance.

    Args:
      vectors: the embeddings from the language model.
      seed: seed of the stream "augment/random-vectors".

    Returns:
      float32, centered.

    Raises:
      UserError: as `unit_variance`.
    """
    unit_variance(vectors)  # refuses vectors without a spectrum
    wide = np.asarray(vectors, np.float64)
    _, values, loadings = np.linalg.svd(wide - wide.mean(axis=0), full_matrices=False)
    rank = min(len(wide) - 1, wide.shape[1])  # centering leaves no more
    drawn = prng.generator(seed, "augment/random-vectors").normal(size=(len(wide), rank))
    basis, _ = np.linalg.qr(drawn - drawn.mean(axis=0))
    found: Float[np.ndarray, "I E"] = ((basis * values[:rank]) @ loadings[:rank]).astype(np.float32)
    return found
