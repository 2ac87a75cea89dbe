"""P2Rec end to end on the embedded storefront: three recommenders, with and without what the LM says of the items.

Command: delrec run --config=configs/p2rec/storefront.py --workdir=runs/p2rec_storefront
Data: generated, 1000 users, 216 items, 30 % of them new releases; nothing to download.
Hardware and time: one CPU core beside other jobs, 14 minutes, of which `augment` 6.
Expect, `full` NDCG@10, mean of 3 seeds: SASRec 0.462, with P2Rec 0.482 +- 0.003; GRU4Rec 0.363 and 0.509 +- 0.009; Caser
0.33 +- 0.05 and 0.526 +- 0.011; the untuned LM's embeddings do as well as the tuned one's (docs/results.md).
"""

from ml_collections import ConfigDict

from delrec_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.method = "p2rec"
    config.data.corpus = "storefront"
    config.data.domain = "items"
    config.data.storefront.update(series=4, volumes=9, users=1000)
    config.prompts.update(max_tokens=256, max_history=4)
    config.lm.t5.update(
        d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, num_decoder_layers=1
    )
    text = config.pretrain.text
    text.update(history=4, short_first=500, heldout_items=0.05, batch_tokens=2048)
    text.update(short=0.25, several=0.05, full=0.6, attributes=0.1)
    config.pretrain.loop.steps = 1800
    config.pretrain.gate.attributes = 0.9
    teacher = config.teacher
    teacher.sasrec.max_length = 16
    teacher.gru4rec.max_length = 16
    teacher.caser.max_length = 16
    teacher.batch_size = 24
    teacher.cold_negatives = False
    teacher.loop.update(steps=400, evaluate_every=50, patience=3)
    config.parse.update(seeds=3, categories=12, max_tokens=128)
    config.parse.optimizer.learning_rate = 4e-3
    config.parse.loop.update(steps=400, evaluate_every=50)
    config.augment.way = "concatenate"
    return config
