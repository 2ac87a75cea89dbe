"""The names of systems in records and tables: those that exist, and hybrids of them."""

from collections.abc import Sequence

SIMPLE_BASELINES = ("popularity", "itemknn", "markov", "ease", "tfidf", "cease")
"""The baselines that need neither a language model nor training."""

LM_EMBEDDINGS, LM_CEASE = "lm_embeddings", "lm_cease"
TITLE_VECTORS = (LM_EMBEDDINGS, LM_CEASE)
"""What the untuned language model's vectors of titles recommend: the nearest items, and CEASE with them in place of words."""

BASELINES = (*SIMPLE_BASELINES, *TITLE_VECTORS)
"""The systems that are trained on no interactions, or solved: the same for every teacher and seed, as far as the language model
is (one that a run pre-trains has the run's seed)."""

# In the order in which every table lists them.
SYSTEMS = (
    *BASELINES,
    "teacher",
    "teacher_augmented",
    "teacher_augmented_untuned_lm",
    "teacher_augmented_shuffled_text",
    "teacher_augmented_random_vectors",
    "lm_no_prompt",
    "lm_supervised",
    "lm_readout",
    "lm_random_prompt",
    "lm_shuffled_prompt",
    "lm_distilled_prompt",
    "lm_true_prompt",
    "lm_tuned_no_prompt",
    "lm_tuned_random_prompt",
    "lm_tuned_shuffled_prompt",
    "lm_tuned_true_prompt",
    "delrec",
    "lm_words",
    "oracle",
)

_OF_RECOMMENDERS = tuple(name for name in SYSTEMS if name.startswith("teacher"))

PARTS_OF_HYBRIDS = tuple(name for name in SYSTEMS if name != "oracle")
"""The systems that a hybrid can consist of."""


def hybrid_name(parts: Sequence[str]) -> str:
    """The name of a hybrid of these systems in the results."""
    return f"hybrid({'+'.join(parts)})"


def hybrid_parts(system: str) -> tuple[str, ...]:
    """The systems of a hybrid by its name; none for any other system."""
    if not (system.startswith("hybrid(") and system.endswith(")")):
        return ()
    return tuple(system.removeprefix("hybrid(").removesuffix(")").split("+"))


UNTRAINED = frozenset((*BASELINES, "oracle"))
"""Systems that are the same for all seeds and teachers, or for those with one language model: one result stands for all
workdirs, if they agree."""


def untrained(system: str) -> bool:
    """Whether a system is one of `UNTRAINED`, or a hybrid of these."""
    return set(hybrid_parts(system) or (system,)) <= UNTRAINED


def of_recommender(system: str, recommender: str) -> str:
    """What a finished run calls a system that is made with another recommender than its teacher, such as `teacher(ease)`.

    Records have the recommender in a column of its own.
    """
    parts = hybrid_parts(system) or (system,)
    named = [f"{part}({recommender})" if part in _OF_RECOMMENDERS else part for part in parts]
    return hybrid_name(named) if len(named) > 1 else named[0]


def split_recommender(system: str) -> tuple[str, str]:
    """A system and its recommender, which is empty where the name has none; not for hybrids."""
    name, _, rest = system.partition("(")
    return name, rest.removesuffix(")")


def is_system(system: str) -> bool:
    """Whether results may have this name: a system of `SYSTEMS`, or a hybrid of such systems."""
    parts = hybrid_parts(system)
    return system in SYSTEMS or (len(parts) > 1 and set(parts) <= set(PARTS_OF_HYBRIDS))


def system_order(system: str) -> tuple[int, ...]:
    """Sort key of a system in tables: the order of `SYSTEMS`, with hybrids before the oracle."""
    if system in SYSTEMS:
        return (int(system == "oracle") * 2, SYSTEMS.index(system))
    parts = hybrid_parts(system)
    return (1, len(parts), *(SYSTEMS.index(part) for part in parts))
