"""Text alone: items whose titles share rare words with those of the history (TF-IDF).

No language model is asked: this is what a language model's knowledge of titles has to be compared with.
"""

from collections.abc import Mapping

from delrec_jax.errors import UserError
from delrec_jax.teachers.item_to_item import (
    READ_ITEMS,
    ItemToItem,
    check_catalogue,
    item_to_item,
)
from delrec_jax.teachers.training_part import TrainingPart


class TitleSimilarity:
    """TF-IDF of titles as a `registry.ClosedForm`: the cosine of two titles' words, with the logarithm of the counts.

    Settings:
        words: length of the longest phrase that counts as a word: 1, or 2 for pairs of neighbors too.
    """

    title = "TF-IDF"
    max_length = READ_ITEMS
    grid: Mapping[str, tuple[float, ...]] = {"words": (2.0, 1.0)}

    def fit(self, train: TrainingPart, *, words: float) -> ItemToItem:
        """Compares all titles.

        Raises:
          UserError: the catalogue is too large, or no title has a word.
        """
        # Not at the top: scikit-learn takes a second to import, and every command reads the names of recommenders.
        from sklearn.feature_extraction.text import TfidfVectorizer

        check_catalogue("TF-IDF", train.num_items)
        vectorizer = TfidfVectorizer(
            ngram_range=(1, int(words)), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
        )
        try:
            vectors = vectorizer.fit_transform(train.titles)
        except ValueError as error:  # an empty vocabulary
            raise UserError(
                f"TF-IDF: the titles of the catalogue have no words ({error}): leave tfidf out of baselines.names"
            ) from error
        return item_to_item((vectors @ vectors.T).toarray())


TITLE_SIMILARITY = TitleSimilarity()
"""TF-IDF of titles."""
