"""P2Rec end to end on the embedded storefront: three recommenders, with and without the LM's embeddings of the items.

Command: delrec run --config=configs/p2rec/storefront.py --workdir=runs/p2rec_storefront
Data: generated, 1000 users, 216 items, 30 % of them new releases; nothing to download.
Hardware and time: one CPU core alongside other jobs, about 15 minutes, half of them `augment`.
Expect, test NDCG@10 (docs/results/study_p2rec_main.md: the same settings, a language model for each of three seeds): SASRec
0.463, with P2Rec 0.489; GRU4Rec 0.358 and 0.523; Caser 0.325 and 0.539; as high or higher with the untuned model's embeddings.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    shared = ("data", "prompts", "lm", "pretrain", "teacher")
    config = base_config(__file__, "../storefront.py", only=shared)
    config.method = "p2rec"
    config.pretrain.gate.next_in_series = 0.0  # P2Rec needs what titles say, not what comes next
    config.teacher.gru4rec.max_length = 16
    config.teacher.caser.max_length = 16
    config.teacher.cold_negatives = False
    config.parse.update(seeds=3, categories=12, max_tokens=128)
    config.parse.optimizer.learning_rate = 4e-3
    config.parse.loop.update(steps=400, evaluate_every=50)
    config.augment.way = "concatenate"
    return config
