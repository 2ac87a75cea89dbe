"""P2Rec end to end on MovieLens-100K with a small T5 pre-trained on its own text.

Command: delrec run --config=configs/p2rec/ml100k_mini.py --config.data.path=PATH/TO/ml-100k --workdir=runs/p2rec_ml100k
Data: RecBole's atomic files of MovieLens-100K (ml-100k.inter, ml-100k.item).
Hardware and time: one CPU core alongside other jobs, about 90 minutes: pretrain 10, parse 10 to 14, the rest `augment`.
Expect, `full` NDCG@10, mean of 3 seeds: SASRec 0.098 +- 0.007, with P2Rec 0.086 +- 0.006; GRU4Rec 0.092 and 0.097; Caser 0.089
and 0.098: no gain is statistically significant (docs/results.md).
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    shared = ("data", "prompts", "lm", "pretrain")
    config = base_config(__file__, "../ml100k_mini.py", only=shared)
    config.method = "p2rec"
    config.teacher = base_config(__file__, "../teachers/ml_100k.py").teacher
    config.parse.update(seeds=3, categories=20, max_tokens=512)
    config.parse.optimizer.learning_rate = 1e-2
    config.parse.loop.update(steps=90, evaluate_every=30)
    config.augment.way = "initialise"
    return config
