"""Who gains from the language model: users with short histories, rare items, new items?

Question: DELRec, its teacher and their hybrid by the length of the user's history and by how often the target occurs in
training; items that do not occur are those of a cold start.
Arms: `full`, and `items=1` to `items=4` without the base's own number (4 on the storefront): the language model reads only
the latest items, as if the user were new.
Command: delrec study --config=configs/studies/cold_start.py --workdir=runs/cold_start      (or NAME.py:BASE)
Time: 4 arms x 3 seeds; all but `full` have a language model of their own on the storefront: 42 minutes there, on two busy cores
(docs/results/study_cold_start.md).
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Arm, Study, along, main_metric

BASE = "../storefront.py"


def get_study(base: ConfigDict) -> Study:
    alone = {"tune.controls": ("none",), "distill.controls": ()}
    shown = [items for items in (1, 2, 3, 4) if items != base.prompts.max_history]
    return Study(
        question="Who gains from the language model: users with short histories, rare items, new items?",
        arms=(
            Arm("full", alone),
            *along("prompts.max_history", shown, axis="items", also=lambda items: alone),
        ),
        reference="full",
        systems=("delrec", "lm_tuned_no_prompt"),
        context=("teacher", "ease", "markov", "tfidf", "hybrid(delrec+teacher)"),
        metric=main_metric(base),
        by_users=True,
    )
