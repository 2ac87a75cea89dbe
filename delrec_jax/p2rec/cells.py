"""What P2Rec compares: every recommender under every seed, plain, augmented, and with the vectors of the controls."""

from delrec_jax.config import Experiment
from delrec_jax.config.p2rec import CONTROLS
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN, Cell

UNTUNED, SHUFFLED = "teacher_augmented_untuned_lm", "teacher_augmented_shuffled_text"
RANDOM = "teacher_augmented_random_vectors"
"""The controls: embeddings of the untuned language model, the tuned one's embeddings of other items' titles, and random
vectors with the spectrum of the tuned one's embeddings."""
CONTROL_SYSTEMS = dict(zip(CONTROLS, (UNTUNED, SHUFFLED, RANDOM), strict=True))
"""Their systems, by the names in `augment.controls`."""


def seeds(experiment: Experiment) -> range:
    """Seeds of the repetitions; DELRec has only one, as it needs one teacher."""
    count = experiment.parse.seeds if experiment.method == "p2rec" else 1
    return range(experiment.seed, experiment.seed + count)


def cells(experiment: Experiment) -> list[Cell]:
    """All recommenders that `augment` trains; those with the same network follow one another."""
    if experiment.method != "p2rec":
        return [Cell(experiment.teacher.name, experiment.seed, AUGMENTED)]
    controls = [CONTROL_SYSTEMS[name] for name in CONTROLS if name in experiment.augment.controls]
    return [
        Cell(name, seed, system)
        for name in experiment.augment.teachers
        for system in (PLAIN, AUGMENTED, *controls)
        for seed in seeds(experiment)
    ]
