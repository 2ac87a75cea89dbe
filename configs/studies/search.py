"""Which settings does DELRec need on a corpus? A search, on validation alone.

Question: with which learning rates of both stages, k, h, weight of Temporal Analysis and anchor does DELRec rank the next items
of validation users best? The best trial is written as a config, and only a run of that looks at test users.
Arms: `base`, with room in a text for the longest prompt; the trials begin from it, and `--search=N` runs N of them. All share
corpus, language model and teacher, and have one seed: run the best one with several, beside `base`.
Command: delrec study --config=configs/studies/search.py --workdir=runs/search --search=40 --jobs=2      (or NAME.py:BASE)
Time: a trial is stage 1 and stage 2 with the distilled prompt, or a part of stage 2 if it is given up. Not run in full yet.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.ranges import Range
from delrec_jax.studies.study import Arm, Study, main_metric

BASE = "../storefront.py"


def get_study(base: ConfigDict) -> Study:
    lengths = {max(1, int(base.distill.length * factor)) for factor in (0.25, 0.5, 1, 2)}
    room = base.prompts.max_tokens + max(lengths) - base.distill.length
    return Study(
        question="Which settings does DELRec need on this corpus?",
        arms=(Arm("base", {"prompts.max_tokens": room}),),
        reference="base",
        seeds=(base.seed,),
        metric=main_metric(base),
        ranges=(
            Range("distill.length", choices=tuple(sorted(lengths))),
            *_stage_1(base.distill),
            *_stage_2(base.tune),
        ),
    )


def _stage_1(distill: ConfigDict) -> list[Range]:
    found = [_rate("distill", distill.optimizer.learning_rate)]
    items = tuple(h for h in (5, 10, 15, 20) if h <= distill.num_candidates)
    if len(items) > 1:
        found.append(Range("distill.top_h", choices=items))
    if distill.weighting == "fixed" and "ta" in distill.tasks and distill.tasks.ta.share:
        found.append(Range("distill.tasks.ta.weight", low=0.0, high=1.0))
    return found


def _stage_2(tune: ConfigDict) -> list[Range]:
    found = [_rate("tune", tune.optimizer.learning_rate)]
    if tune.loss_over == "catalogue" and not tune.refresh_vectors:
        found.append(Range("tune.anchor", low=0.0, high=2.0))
    return found


def _rate(stage: str, rate: float) -> Range:
    return Range(f"{stage}.optimizer.learning_rate", low=rate / 10, high=rate * 3, log=True)
