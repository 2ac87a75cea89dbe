"""How much two titles have in common by their words: TF-IDF, without a language model."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from delrec_jax.errors import UserError


def word_cosines(titles: Sequence[str], words: int) -> Float[np.ndarray, "I I"]:
    """The cosine of each two titles' words, with the logarithm of the counts.

    Args:
      titles: one for each item.
      words: length of the longest phrase that counts as a word: 1, or 2 for pairs of neighbors too.

    Raises:
      UserError: no title has a word.
    """
    # Not at the top: scikit-learn takes a second to import, and every command reads the names of recommenders.
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=(1, words), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        vectors = vectorizer.fit_transform(titles)
    except ValueError as error:  # an empty vocabulary
        raise UserError(
            f"TF-IDF: the titles of the catalogue have no words ({error}): leave tfidf and cease out of baselines.names"
        ) from error
    # Summed in float64: titles that are equally similar must stay tied after rounding.
    cosines: Float[np.ndarray, "I I"] = (vectors @ vectors.T).toarray().astype(np.float32)
    return cosines
