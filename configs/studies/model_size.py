"""What does a larger language model add?

Question: DELRec by the size of its language model, with the same teacher.
Arms: small T5s of width 32, 64 and 128 where the base pre-trains its own; Flan-T5 small, base, large and XL where it loads one.
Command: delrec study --config=configs/studies/model_size.py --workdir=runs/model_size      (or NAME.py:BASE)
Time: 3 arms x 3 seeds, each with its own language model on the storefront; with Flan-T5 meant for eight 80 GB GPUs (see
`delrec plan`). Not run in full yet.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Arm, Study, main_metric

BASE = "../storefront.py"

WIDTHS = (32, 64, 128)
HUB = ("google/flan-t5-small", "google/flan-t5-base", "google/flan-t5-large", "google/flan-t5-xl")


def get_study(base: ConfigDict) -> Study:
    alone = {"tune.controls": ("none",), "distill.controls": ()}
    if base.lm.weights:
        arms = [Arm(name.partition("/")[2], {"lm.weights": name, **alone}) for name in HUB]
        reference = "flan-t5-base"
    else:
        arms = [
            Arm(
                f"width={width}",
                {
                    "lm.t5.d_model": width,
                    "lm.t5.d_kv": width // base.lm.t5.num_heads,
                    "lm.t5.d_ff": 2 * width,
                    **alone,
                },
                at={"width": width},
            )
            for width in WIDTHS
        ]
        reference = "width=64"
    return Study(
        question="What does a larger language model add?",
        arms=tuple(arms),
        reference=reference,
        systems=("delrec", "lm_distilled_prompt", "lm_tuned_no_prompt"),
        context=("teacher",),
        metric=main_metric(base),
    )
