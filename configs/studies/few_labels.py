"""Does distillation help more where labels are few?

Question: how DELRec, its teacher, and the same language model tuned without a distilled prompt lose with fewer training users.
Arms: the interactions of 100 users, 250, 500 and all are for training, everywhere: pre-training, teacher, both stages.
Command: delrec study --config=configs/studies/few_labels.py --workdir=runs/few_labels      (or NAME.py:BASE)
Time: 4 arms x 3 seeds, each with a language model and a teacher of its own: 75 minutes on the storefront (2 busy CPU cores).
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Arm, Study, along, main_metric

BASE = "../storefront.py"

USERS = (100, 250, 500)


def get_study(base: ConfigDict) -> Study:
    controls = {"tune.controls": ("none", "random"), "distill.controls": ()}
    return Study(
        question="Does distillation help more where labels are few?",
        arms=(
            Arm("all", controls),
            *along("split.label_users", USERS, axis="users", also=lambda users: controls),
        ),
        reference="all",
        systems=("delrec", "lm_distilled_prompt", "lm_tuned_no_prompt", "teacher", "ease"),
        metric=main_metric(base),
    )
