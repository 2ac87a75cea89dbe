"""How much of the teacher's list should be distilled?

Question: DELRec by h, the number of the teacher's best items among the candidates of a text (`distill.top_h`).
Arms: h = 5, 10, 15, 20, each with the base's number of candidates.
Command: delrec study --config=configs/studies/teacher_items.py --workdir=runs/teacher_items      (or NAME.py:BASE)
Time: 4 arms x 3 seeds: 51 minutes on the storefront, on two busy cores (docs/results/study_teacher_items.md); meant for one
80 GB GPU with Flan-T5 large.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Study, along, main_metric

BASE = "../storefront.py"

ITEMS = (5, 10, 15, 20)


def get_study(base: ConfigDict) -> Study:
    alone = {
        "tune.controls": (),
        "distill.controls": (),
        "distill.num_candidates": max(20, base.distill.num_candidates),
    }
    return Study(
        question="How much of the teacher's list should be distilled?",
        arms=along("distill.top_h", ITEMS, axis="h", also=lambda items: alone),
        reference="h=10",
        systems=("delrec", "lm_distilled_prompt"),
        context=("teacher",),
        metric=main_metric(base),
    )
