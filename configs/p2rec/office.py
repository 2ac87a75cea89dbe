"""P2Rec end to end on Amazon Office Products with a small T5 pre-trained on its own text.

Command: delrec run --config=configs/p2rec/office.py --config.data.path=PATH/TO/office-products --workdir=runs/p2rec_office
Data: atomic files (office-products.inter, office-products.item).
Hardware and time: one CPU core alongside other jobs, about 50 minutes: pretrain 8, parse 7, `augment` 34.
Expect, `full` NDCG@10, mean of 3 seeds: SASRec 0.084, with P2Rec 0.088 +- 0.001; GRU4Rec 0.038 and 0.059 +- 0.003; Caser
0.043 and 0.071 +- 0.002; the untuned LM's embeddings do as well as the tuned one's (docs/results.md).
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
    return config
