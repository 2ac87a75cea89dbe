"""How long should the soft prompt be?

Question: DELRec's ranking of the next item by the number of soft slots, k. The paper uses 100 of Flan-T5's width.
Arms: k = 1 to 100; every text has room for the longest prompt, so that no history is lost and one language
model serves all arms.
Command: delrec study --config=configs/studies/prompt_length.py --workdir=runs/prompt_length      (or NAME.py:BASE)
Time: 6 arms x 3 seeds that share corpus, teachers and language models: 19 minutes with --jobs=2 on 2 CPU cores, beside other
work; meant for one 80 GB GPU with Flan-T5 large.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Study, along, main_metric

BASE = "../storefront.py"

LENGTHS = (1, 4, 8, 20, 50, 100)


def get_study(base: ConfigDict) -> Study:
    room = base.prompts.max_tokens - base.distill.length + max(LENGTHS)
    alone = {"prompts.max_tokens": room, "tune.controls": (), "distill.controls": ()}
    return Study(
        question="How long should the soft prompt be?",
        arms=along("distill.length", LENGTHS, axis="k", also=lambda length: alone),
        reference="k=8",
        systems=("delrec", "lm_distilled_prompt"),
        context=("teacher",),
        metric=main_metric(base),
    )
