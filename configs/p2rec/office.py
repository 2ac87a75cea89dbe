"""P2Rec end to end on Amazon Office Products with a small T5 pre-trained on its own text.

Command: delrec run --config=configs/p2rec/office.py --config.data.path=PATH/TO/office-products --workdir=runs/p2rec_office
Data: atomic files (office-products.inter, office-products.item).
         (SASRec alone: --config.augment.teachers="('sasrec',)")
Hardware and time: one CPU core alongside other jobs: pretrain 8 minutes, parse 7; `augment` trains 44 recommenders with the
budget of configs/teachers/small.py.
Expect, `full` NDCG@10, mean of 3 seeds: SASRec 0.083, with P2Rec 0.091 +- 0.001, with random vectors 0.083, with TF-IDF of
titles beside it 0.106; the untuned language model's embeddings do as well as the tuned one's (docs/results/p2rec.md). GRU4Rec
and Caser were not run with these settings. The categories explain 5 % of log-popularity (with parse.popularity=kept 48 %).
The way was the best of nine on validation items.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "ml100k_mini.py")
    config.data.domain = "items"
    config.prompts.max_title_tokens = 12
    config.pretrain.gate.next_item = 0.0
    config.pretrain.loop.steps = 1200
    config.teacher = base_config(__file__, "../teachers/small.py").teacher
    config.parse.loop.update(steps=200, evaluate_every=50)
    config.augment.update(way="ensemble", reduce="whitened")
    return config
