"""P2Rec end to end on MovieLens-100K with a small T5 pre-trained on its own text.

Command: delrec run --config=configs/p2rec/ml100k_mini.py --config.data.path=PATH/TO/ml-100k --workdir=runs/p2rec_ml100k
Data: RecBole's atomic files of MovieLens-100K (ml-100k.inter, ml-100k.item).
Hardware and time: one CPU core beside other jobs, about 90 minutes: pretrain 10, parse 10 to 14, the rest `augment`.
Expect, `full` NDCG@10, mean of 3 seeds: SASRec 0.098 +- 0.007, with P2Rec 0.086 +- 0.006; GRU4Rec 0.092 and 0.097; Caser 0.089
and 0.098: nothing is gained that the tests can tell (docs/results.md).
"""

from ml_collections import ConfigDict

from delrec_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.method = "p2rec"
    config.data.update(corpus="atomic", path="../shared/data/ml-100k", domain="movies")
    config.prompts.update(max_tokens=256, max_history=10, max_title_tokens=3)
    config.lm.vocab_size = 6000
    config.lm.t5.update(d_model=96, d_kv=24, num_heads=4, d_ff=192, num_layers=2)
    text = config.pretrain.text
    text.update(short=0.0, several=0.0, full=0.0, attributes=0.0, recent=1.0, cloze=0.0)
    text.update(queries=4, recent_window=10, mask_rate=0.3, heldout_items=0.0)
    text.update(batch_tokens=6144)
    config.pretrain.update(bag_weight=0.0, catalogue_weight=1.0)
    config.pretrain.optimizer.update(learning_rate=2e-3, warmup_steps=100)
    config.pretrain.gate.next_item = 0.1
    config.pretrain.loop.update(steps=2200, evaluate_every=200, checkpoint_every=400)
    teacher = config.teacher
    teacher.sasrec.update(width=64, layers=2, heads=2, max_length=100, dropout=0.3)
    teacher.gru4rec.update(width=64, hidden=128, layers=1, max_length=100, dropout=0.3)
    teacher.caser.update(width=100, max_length=100, dropout=0.4)
    teacher.batch_size = 16
    teacher.optimizer.update(
        name="adam", learning_rate=1e-3, schedule="constant", warmup_steps=60, average=0.995
    )
    teacher.loop.update(steps=976, evaluate_every=122, checkpoint_every=976, patience=3)
    config.parse.update(seeds=3, categories=20, max_tokens=512)
    config.parse.optimizer.learning_rate = 1e-2
    config.parse.loop.update(steps=90, evaluate_every=30)
    config.augment.update(way="initialise", start_std=0.1)
    return config
