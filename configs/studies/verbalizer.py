"""How should a language model's answer become scores of items?

Question: DELRec by verbalizer: the mean over a title's tokens or its first token alone, over the whole catalogue from one pass.
Arms: `mean` and `first`. `sequence` and `index` score stated candidates only: `index` is in the arm `llamarec` of `rivals.py`,
`sequence` in no study.
Command: delrec study --config=configs/studies/verbalizer.py --workdir=runs/verbalizer      (or NAME.py:BASE)
Time: 2 arms x 3 seeds, each with its own language model on the storefront: 23 minutes, with --jobs=2 on two cores without
AVX-512, beside other work (docs/results/study_verbalizer.md).
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Study, along, main_metric

BASE = "../storefront.py"


def get_study(base: ConfigDict) -> Study:
    alone = {"tune.controls": ("none",), "distill.controls": ()}
    return Study(
        question="How should a language model's answer become scores of items?",
        arms=along("lm.verbalizer", ("mean", "first"), also=lambda name: alone),
        reference="verbalizer=mean",
        systems=("delrec", "lm_distilled_prompt", "lm_tuned_no_prompt"),
        context=("teacher",),
        metric=main_metric(base),
    )
