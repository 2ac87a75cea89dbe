"""What systems are called in tables and plots."""

from collections.abc import Mapping
from typing import Any

from delrec_jax.evaluation.systems import hybrid_parts, split_recommender

Row = Mapping[str, Any]

SYSTEM_LABELS = {
    "popularity": "Popularity",
    "itemknn": "ItemKNN",
    "markov": "Markov",
    "ease": "EASE",
    "tfidf": "TF-IDF",
    "cease": "CEASE",
    "lm_embeddings": "LM's title vectors",
    "lm_cease": "CEASE with LM's title vectors",
    "teacher": "Teacher",
    "teacher_augmented": "Teacher + P2Rec",
    "teacher_augmented_untuned_lm": "Teacher + untuned LM",
    "teacher_augmented_shuffled_text": "Teacher + shuffled text",
    "teacher_augmented_random_vectors": "Teacher + random vectors",
    "lm_no_prompt": "LM, zero-shot (no prompt)",
    "lm_supervised": "LM, supervised (no prompt)",
    "lm_readout": "LM, two scalars distilled",
    "lm_random_prompt": "LM + random prompt",
    "lm_shuffled_prompt": "LM + shuffled prompt",
    "lm_distilled_prompt": "LM + distilled prompt",
    "lm_true_prompt": "LM + true-item prompt",
    "lm_tuned_no_prompt": "Tuned LM, no prompt",
    "lm_tuned_random_prompt": "Tuned LM + random prompt",
    "lm_tuned_shuffled_prompt": "Tuned LM + shuffled prompt",
    "lm_tuned_true_prompt": "Tuned LM + true-item prompt",
    "delrec": "DELRec",
    "lm_words": "LM + plain words",
    "oracle": "Oracle",
}


def system_label(system: str, teacher: str, *, teachers: bool) -> str:
    """A system's label, with the teacher's name if there are several teachers or the system is the teacher."""
    named = teacher and (teachers or system == "teacher")
    return base_label(system) + (f" ({_without_path(teacher)})" if named else "")


def _without_path(recommender: str) -> str:
    """A recommender's name; of somebody's own, `FILE.py:NAME`, without the folders of this machine."""
    return recommender.rpartition("/")[2]


def base_label(system: str) -> str:
    """A system's label, with the recommender that its name has; that of a hybrid joins the labels of its systems."""
    if parts := hybrid_parts(system):
        return " + ".join(map(base_label, parts))
    name, recommender = split_recommender(system)
    return SYSTEM_LABELS[name] + (f" ({_without_path(recommender)})" if recommender else "")


def selection_text(row: Row) -> str:
    """What belongs to the label of a trained language system: what it was tuned beside, and its selected step.

    Args:
      row: has `system`, `step`, and possibly `beside`, as rows of `metrics.json` do.

    Returns:
      Nothing for a system of which no step was selected. Step 0 is no training at all, and is called that.
    """
    beside = ", tuned beside the teacher" if row.get("beside") else ""
    if row["step"] < 0:
        return beside
    tuned = row["system"] == "delrec" or row["system"].startswith("lm_tuned")
    untrained = f"not {'tuned' if tuned else 'trained'}: " if row["step"] == 0 else ""
    return f"{beside} ({untrained}step {row['step']})"
