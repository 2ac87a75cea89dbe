"""How much do seeds alone move the main table?

Question: two arms that differ by their seeds and by nothing else: what a comparison of equal systems looks like, and the
smallest difference that its paired test would see (with a power of 80 %).
Arms: `seeds` with the study's seeds, `other_seeds` with three others; corpus, split and closed-form recommenders are the same.
Command: delrec study --config=configs/studies/noise.py --workdir=runs/noise      (or NAME.py:BASE)
Time: 2 arms x 3 seeds, each with a language model and a teacher of its own on the storefront: 10 minutes with --jobs=2 on 2
CPU cores.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Arm, Study, main_metric

BASE = "../storefront.py"


def get_study(base: ConfigDict) -> Study:
    alone = {"tune.controls": ("none",), "distill.controls": ()}
    return Study(
        question="How much do seeds alone move the main table?",
        arms=(Arm("seeds", alone), Arm("other_seeds", alone, seed_shift=100)),
        reference="seeds",
        systems=("delrec", "lm_distilled_prompt", "lm_tuned_no_prompt", "teacher"),
        context=("ease", "oracle"),
        metric=main_metric(base),
    )
