"""The main table: three teachers, and every system that is ranked beside them.

Question: does DELRec beat its teacher, the closed-form recommenders, and the same language model without the distilled prompt?
Arms: one per teacher (SASRec, GRU4Rec, Caser), with all controls, baselines and hybrids of the base.
Command: delrec study --config=configs/studies/main.py --workdir=runs/main      (or NAME.py:BASE, once per corpus)
Time: 3 arms x 3 seeds; with Flan-T5 large meant for one 80 GB GPU per run (`launch/study.sbatch`). Not run in full yet.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Study, along, main_metric

BASE = "../storefront.py"

SYSTEMS = (
    *("delrec", "teacher", "lm_distilled_prompt", "lm_shuffled_prompt", "lm_true_prompt"),
    *("lm_tuned_no_prompt", "lm_tuned_random_prompt", "lm_tuned_shuffled_prompt"),
)


def get_study(base: ConfigDict) -> Study:
    return Study(
        question="Does DELRec beat its teacher, closed-form recommenders, and its own language model?",
        arms=along("teacher.name", ("sasrec", "gru4rec", "caser"), axis="teacher"),
        reference="teacher=sasrec",
        systems=SYSTEMS,
        context=(
            "popularity",
            "itemknn",
            "markov",
            "ease",
            "tfidf",
            "cease",
            "lm_embeddings",
            "lm_cease",
            "oracle",
        ),
        metric=main_metric(base),
    )
