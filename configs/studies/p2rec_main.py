"""P2Rec's main table: ways of bringing the language model's item embeddings into a recommender.

Question: which way helps the recommender most, by validation; and does the chosen one beat its controls on test?
Arms: the ways of `augment`; validation chooses, and the tables show the test figures of the chosen way alone (and of the
reference), beside an untuned language model's embeddings, shuffled titles and random vectors of the same spectrum.
Command: delrec study --config=configs/studies/p2rec_main.py --workdir=runs/p2rec_main      (or NAME.py:configs/p2rec/office.py)
Time: 6 arms x 3 seeds that share the reconstruction of preferences: 54 minutes on the storefront, with --jobs=2 on two cores
without AVX-512, beside other work (docs/results/study_p2rec_main.md).
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Arm, Study

BASE = "../p2rec/storefront.py"

WAYS = {
    "concatenate": ("concatenate", "pca"),
    "initialise": ("initialise", "pca"),
    "initialise_whitened": ("initialise", "whitened"),
    "halves": ("halves", "pca"),
    "adapter": ("adapter", "pca"),
    "ensemble": ("ensemble", "whitened"),
}


def get_study(base: ConfigDict) -> Study:
    once = {"parse.seeds": 1}  # seeds are the study's
    return Study(
        question="Which way of using the language model's item embeddings helps a recommender most?",
        arms=tuple(
            Arm(name, {**once, "augment.way": way, "augment.reduce": reduce})
            for name, (way, reduce) in WAYS.items()
        ),
        reference="concatenate",
        systems=(
            *("teacher_augmented", "teacher_augmented_untuned_lm"),
            *("teacher_augmented_shuffled_text", "teacher_augmented_random_vectors"),
        ),
        context=("teacher", "popularity", "ease", "tfidf", "cease"),
        tuned=True,
    )
