"""How should P2Rec reconstruct preferences?

Question: the augmented recommender by the number of latent categories, K, and by the loss between distributions.
Arms: K = 5, 12, 30, each with the squared error (the paper) and with Kullback and Leibler's divergence.
Command: delrec study --config=configs/studies/p2rec_categories.py --workdir=runs/p2rec_categories      (or NAME.py:BASE)
Time: 6 arms x 3 seeds that share corpus, teachers and language models: 26 minutes on the storefront, with --jobs=2 on two cores
without AVX-512, beside other work (docs/results/study_p2rec_categories.md).
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Study, along, grid

BASE = "../p2rec/storefront.py"


def get_study(base: ConfigDict) -> Study:
    once = {"parse.seeds": 1, "augment.controls": (), "augment.teachers": ("sasrec",)}
    return Study(
        question="How should P2Rec reconstruct preferences?",
        arms=grid(
            along("parse.categories", (5, 12, 30), axis="K", also=lambda number: once),
            along("parse.loss", ("mse", "kl")),
        ),
        reference="K=12,loss=mse",
        systems=("teacher_augmented",),
        context=("teacher",),
    )
