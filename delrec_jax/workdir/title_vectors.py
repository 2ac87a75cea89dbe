"""The recommender of nearest titles, by the language model's own vectors, untuned.

A user is sent to the items whose titles are nearest to those of the latest items (Harte et al., "Leveraging Large Language
Models for Sequential Recommendation", RecSys 2023, call it LLMSeqSim). Nothing is trained but the weights by age, which are
chosen by validation.
"""

from typing import Any, cast

from delrec_jax.config import BaselinesConfig
from delrec_jax.data.splits import Split
from delrec_jax.teachers.item_to_item import READ_ITEMS, vector_similarity
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.workdir.closed_forms import best_by_recency
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.recommenders import ConventionalSystem
from delrec_jax.workdir.validation import Validation

NAME = "lm_embeddings"
"""What it is called in the results."""


def title_vector_teacher(language: Language, split: Split, config: BaselinesConfig) -> Teacher:
    """Returns the recommender of nearest titles, which reads the `READ_ITEMS` latest items of a history."""
    teacher, validation = vector_similarity(language.title_vectors), Validation(split, config)

    def ndcg(candidate: Any) -> float:
        """Validates a choice of weights by age."""
        asked = ConventionalSystem(candidate, split, READ_ITEMS)
        return validation.ndcg(lambda rows: asked.scores("valid", rows), NAME)

    return cast(Teacher, best_by_recency(teacher, ndcg)[0])


def title_vector_system(
    language: Language, split: Split, config: BaselinesConfig
) -> ConventionalSystem:
    """Returns the recommender of nearest titles as a system."""
    return ConventionalSystem(title_vector_teacher(language, split, config), split, READ_ITEMS)
