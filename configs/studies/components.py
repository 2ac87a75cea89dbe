"""Which parts of DELRec matter?

Question: what each part of DELRec adds to the ranking of the next item: that there is a prompt, that it is distilled and not
random, from the true teacher and not from a shuffled one, each of its two tasks, stage 2, and how labels and losses are chosen.
Arms: `full`, and one for each part that is left out or chosen in another way. Systems of `full` are arms too: DELRec without
stage 2 (`lm_distilled_prompt`), and the model tuned without a prompt, with an untrained one, and with a shuffled teacher's.
Command: delrec study --config=configs/studies/components.py --workdir=runs/components      (or NAME.py:BASE for another base)
Time: 6 arms x 3 seeds that share corpus, teachers and language models: 28 minutes with --jobs=2 on 2 CPU cores, beside other
work.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Arm, Study, main_metric

BASE = "../storefront.py"

CONTROLS = ("lm_tuned_no_prompt", "lm_tuned_random_prompt", "lm_tuned_shuffled_prompt")
"""Tuned like DELRec, with another prompt: they are systems of the arm `full`."""


def get_study(base: ConfigDict) -> Study:
    other_label = "listwise" if base.distill.rps_label == "top1" else "top1"
    alone = {
        "tune.controls": (),
        "distill.controls": (),
    }  # the controls are those of the arm `full`
    parts = {
        "no_ta": {"distill.tasks.ta.share": 0.0},
        "no_rps": {"distill.tasks.rps.share": 0.0},
        other_label: {"distill.rps_label": other_label},
        "gradient_norm": {"distill.weighting": "gradient_norm"},
        "uncertainty": {"distill.weighting": "uncertainty"},
    }
    return Study(
        question="Which parts of DELRec matter?",
        arms=(
            Arm("full", systems=("delrec", "lm_distilled_prompt", *CONTROLS)),
            *(Arm(name, {**alone, **changes}) for name, changes in parts.items()),
        ),
        reference="full",
        context=("teacher", "ease", "lm_words", "oracle"),
        metric=main_metric(base),
    )
