"""The language model's own vectors of the titles, untuned, and the recommender that compares them.

A user is sent to the items whose titles are nearest to those of the latest items (Harte et al., "Leveraging Large Language
Models for Sequential Recommendation", RecSys 2023, call it LLMSeqSim). Nothing is trained but the weights by age, which are
chosen by validation.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from delrec_jax.config import BaselinesConfig
from delrec_jax.data.pipeline import bucket_length, make_buckets, pad_texts
from delrec_jax.data.splits import Split
from delrec_jax.language.pooling import mean_pooled
from delrec_jax.teachers.item_to_item import READ_ITEMS, vector_similarity
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.closed_forms import best_by_recency
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import AskedTexts
from delrec_jax.workdir.recommenders import ConventionalSystem
from delrec_jax.workdir.validation import Validation

_BATCH = 256


def title_vectors(language: Language) -> Float[np.ndarray, "I E"]:
    """Returns the mean of the encoder's states over each title's tokens, without a template or a prompt.

    Special tokens that all texts begin and end with are read and count in the mean, as in `sentence-transformers`.
    """
    model = language.model.with_adapters(None)

    def pooled(held: Any, texts: AskedTexts) -> jax.Array:
        """The mean states [B, E] in float32."""
        return mean_pooled(*model.encode(held["params"], texts.ids))

    titles = [language.pieces.framed(title) for title in language.pieces.titles]
    longest = max(map(len, titles))
    ids = pad_texts(titles, bucket_length(longest, make_buckets(longest)))
    batch = min(_BATCH, len(titles))
    step = EvalStep(pooled, language.layout)
    found: np.ndarray = step.in_batches({"params": language.params}, AskedTexts(ids=ids), batch)
    return found


def title_vector_system(
    language: Language, split: Split, config: BaselinesConfig
) -> ConventionalSystem:
    """Returns the recommender of nearest titles."""
    teacher, validation = vector_similarity(title_vectors(language)), Validation(split, config)

    def system(candidate: Any) -> ConventionalSystem:
        """A choice of weights by age as a system."""
        return ConventionalSystem(candidate, split, READ_ITEMS)

    def ndcg(candidate: Any) -> float:
        """Validates a choice."""
        asked = system(candidate)
        return validation.ndcg(lambda rows: asked.scores("valid", rows), "lm_embeddings")

    return system(best_by_recency(teacher, ndcg)[0])
