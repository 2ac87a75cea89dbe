"""How much of a history should the language model read?

Question: DELRec by the number of items that a text shows (`prompts.max_history`), with the same teacher.
Arms: 1, 2, 4, 8 and 16 items; a text has room for them.
Command: delrec study --config=configs/studies/history_length.py --workdir=runs/history_length      (or NAME.py:BASE)
Time: 5 arms x 3 seeds, each with its own language model on the storefront. Not run in full yet.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Study, along, main_metric

BASE = "../storefront.py"

ITEMS = (1, 2, 4, 8, 16)
_TOKENS = 16  # of a title


def get_study(base: ConfigDict) -> Study:
    def room(items: int) -> dict[str, object]:
        longer = max(0, items - base.prompts.max_history)
        return {
            "prompts.max_tokens": base.prompts.max_tokens + _TOKENS * longer,
            "tune.controls": ("none",),
            "distill.controls": (),
        }

    return Study(
        question="How much of a history should the language model read?",
        arms=along("prompts.max_history", ITEMS, axis="items", also=room),
        reference="items=4",
        systems=("delrec", "lm_distilled_prompt", "lm_tuned_no_prompt"),
        context=("teacher",),
        metric=main_metric(base),
    )
