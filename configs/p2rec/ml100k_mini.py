"""P2Rec end to end on MovieLens-100K with a small T5 pre-trained on its own text.

Command: delrec run --config=configs/p2rec/ml100k_mini.py --config.data.path=PATH/TO/ml-100k --workdir=runs/p2rec_ml100k
Data: RecBole's atomic files of MovieLens-100K (ml-100k.inter, ml-100k.item).
         (SASRec alone: --config.augment.teachers="('sasrec',)")
Hardware and time: one CPU core alongside other jobs: pretrain 10 minutes, parse 10 to 14; `augment` trains 44 recommenders (3
names, 3 seeds, plain, augmented and 3 controls), each for up to 3,660 steps as configs/teachers/ml_100k.py does.
Expect, `full` NDCG@10, mean of 3 seeds: SASRec 0.107 +- 0.005, with P2Rec 0.111 +- 0.002, with random vectors of the same
spectrum 0.112 +- 0.005: no gain that can be distinguished from chance (docs/results/p2rec.md). This way was the best of nine
on validation items. The latent categories of seed 0 explain 9 % of the variance of log-popularity (with parse.popularity=kept
79 %).
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
    config.augment.update(way="halves", reduce="whitened")
    return config
