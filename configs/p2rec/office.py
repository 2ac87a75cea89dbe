"""P2Rec end to end on Amazon Office Products with a small T5 pre-trained on its own text.

Command: delrec run --config=configs/p2rec/office.py --config.data.path=PATH/TO/office-products --workdir=runs/p2rec_office
Data: atomic files (office-products.inter, office-products.item).
Hardware and time: one CPU core beside other jobs, about 50 minutes: pretrain 8, parse 7, `augment` 34.
Expect, `full` NDCG@10, mean of 3 seeds: SASRec 0.084, with P2Rec 0.088 +- 0.001; GRU4Rec 0.038 and 0.059 +- 0.003; Caser
0.043 and 0.071 +- 0.002; the untuned LM's embeddings do as well as the tuned one's (docs/results.md).
"""

from ml_collections import ConfigDict

from delrec_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.method = "p2rec"
    config.data.update(corpus="atomic", path="../shared/data/office-products", domain="items")
    config.prompts.update(max_tokens=256, max_history=10, max_title_tokens=12)
    config.lm.vocab_size = 6000
    config.lm.t5.update(d_model=96, d_kv=24, num_heads=4, d_ff=192, num_layers=2)
    text = config.pretrain.text
    text.update(short=0.0, several=0.0, full=0.0, attributes=0.0, recent=1.0, cloze=0.0)
    text.update(queries=4, recent_window=10, mask_rate=0.3, heldout_items=0.0)
    text.update(batch_tokens=6144)
    config.pretrain.update(bag_weight=0.0, catalogue_weight=1.0)
    config.pretrain.optimizer.update(learning_rate=2e-3, warmup_steps=100)
    config.pretrain.loop.update(steps=1200, evaluate_every=200, checkpoint_every=400)
    teacher = config.teacher
    teacher.sasrec.update(width=64, layers=2, heads=2, max_length=50, dropout=0.5)
    teacher.gru4rec.update(width=64, hidden=128, layers=1, max_length=50, dropout=0.5)
    teacher.caser.update(width=100, max_length=50, dropout=0.5)
    teacher.batch_size = 8
    teacher.optimizer.update(
        name="adam", learning_rate=1e-3, schedule="constant", warmup_steps=100, average=0.995
    )
    teacher.loop.update(steps=2500, evaluate_every=100, checkpoint_every=1000, patience=4)
    config.parse.update(seeds=3, categories=20, max_tokens=512)
    config.parse.optimizer.learning_rate = 1e-2
    config.parse.loop.update(steps=200, evaluate_every=50)
    config.augment.update(way="initialise", start_std=0.1)
    return config
