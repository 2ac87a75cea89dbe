"""Text alone: items whose titles share rare words with those of the history (TF-IDF).

No language model is asked: this is what a language model's knowledge of titles has to be compared with.
"""

from collections.abc import Mapping

from delrec_jax.teachers.item_to_item import (
    READ_ITEMS,
    ItemToItem,
    check_catalogue,
    item_to_item,
)
from delrec_jax.teachers.title_words import word_cosines
from delrec_jax.teachers.training_part import TrainingPart


class TitleSimilarity:
    """TF-IDF of titles as a `registry.ClosedForm`: the cosine of two titles' words.

    Settings:
        words: as in `title_words.word_cosines`.
    """

    title = "TF-IDF"
    max_length = READ_ITEMS
    grid: Mapping[str, tuple[float, ...]] = {"words": (2.0, 1.0)}

    def fit(self, train: TrainingPart, *, words: float) -> ItemToItem:
        """Compares all titles.

        Raises:
          UserError: the catalogue is too large, or no title has a word.
        """
        check_catalogue(self.title, train.num_items)
        return item_to_item(word_cosines(train.titles, int(words)))


TITLE_SIMILARITY = TitleSimilarity()
"""TF-IDF of titles."""
