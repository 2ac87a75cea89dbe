"""Does DELRec's lead over the model that is tuned without a prompt hold with more steps, and where nothing holds either back?

Question: the tuned controls have the examples and steps of stage 2, and `tune.anchor` holds each model to what it said before
tuning: DELRec to a good model, the one without a prompt to a bad one. DELRec's prompt had the updates of stage 1 before. What
is left of its lead without the anchor, and with as many steps for the control as both stages have?
Arms: `full`; `free`, without the anchor; `free_long`, without it and with the steps of both stages in stage 2. DELRec and the
model without a prompt are tuned in each.
Command: delrec study --config=configs/studies/tuning_budget.py --workdir=runs/tuning_budget      (or NAME.py:BASE)
         with few labels: --config=configs/studies/tuning_budget.py:configs/storefront.py:few_labels
Time: 3 arms x 3 seeds that share corpus, teachers, language models and prompts: 17 minutes with --jobs=2 on 2 CPU cores.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Arm, Study, main_metric

BASE = "../storefront.py"


def get_study(base: ConfigDict) -> Study:
    alone = {"tune.controls": ("none",), "distill.controls": ()}
    free = {**alone, "tune.anchor": 0.0}
    both = base.distill.loop.steps + base.tune.loop.steps
    return Study(
        question="Does DELRec's lead over tuning without a prompt hold with more steps, and where nothing holds either back?",
        arms=(
            Arm("full", alone),
            Arm("free", free),
            Arm("free_long", {**free, "tune.loop.steps": both}),
        ),
        reference="full",
        systems=("delrec", "lm_tuned_no_prompt"),
        context=("teacher", "ease", "lm_words", "oracle"),
        metric=main_metric(base),
    )
