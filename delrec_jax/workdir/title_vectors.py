"""The recommender of nearest titles, by the language model's own vectors, untuned.

A user is sent to the items whose titles are nearest to those of the latest items (Harte et al., "Leveraging Large Language
Models for Sequential Recommendation", RecSys 2023, call it LLMSeqSim). Nothing is trained but the weights by age, which are
chosen by validation.
"""

from typing import Any

from delrec_jax.config import BaselinesConfig
from delrec_jax.data.splits import Split
from delrec_jax.teachers.item_to_item import READ_ITEMS, vector_similarity
from delrec_jax.workdir.closed_forms import best_by_recency
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.recommenders import ConventionalSystem
from delrec_jax.workdir.validation import Validation


def title_vector_system(
    language: Language, split: Split, config: BaselinesConfig
) -> ConventionalSystem:
    """Returns the recommender of nearest titles."""
    teacher, validation = vector_similarity(language.title_vectors), Validation(split, config)

    def system(candidate: Any) -> ConventionalSystem:
        """A choice of weights by age as a system."""
        return ConventionalSystem(candidate, split, READ_ITEMS)

    def ndcg(candidate: Any) -> float:
        """Validates a choice."""
        asked = system(candidate)
        return validation.ndcg(lambda rows: asked.scores("valid", rows), "lm_embeddings")

    return system(best_by_recency(teacher, ndcg)[0])
