"""DELRec with a teacher that P2Rec augmented, on the embedded storefront.

The language model is tuned to tell users' preferences, its item embeddings go into SASRec, and that SASRec is what DELRec
distils. The table has both: `teacher` (plain) and `teacher_augmented` (DELRec's).
Command: delrec run --config=configs/p2rec/delrec_storefront.py --workdir=runs/p2rec_delrec_storefront
Hardware and time: 2 CPU cores, 29 minutes beside four other jobs.
Expect, `full` HR@1: teacher 0.40, augmented teacher 0.40, DELRec 0.51, each +- 0.03 (docs/results.md).
"""

from ml_collections import ConfigDict

from delrec_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.method = "delrec_p2rec"
    config.data.corpus = "storefront"
    config.data.domain = "items"
    config.data.storefront.update(series=4, volumes=9, users=1000)
    config.prompts.max_tokens = 256
    config.prompts.max_history = 4
    config.lm.t5.update(
        d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, num_decoder_layers=1
    )
    config.pretrain.text.history = 4
    config.pretrain.text.update(short_first=500, heldout_items=0.05)
    config.pretrain.text.batch_tokens = 2048
    config.pretrain.text.update(short=0.25, several=0.05, full=0.6, attributes=0.1)
    config.pretrain.loop.steps = 1800
    config.pretrain.gate.update(attributes=0.9, next_in_series=0.7)
    config.teacher.sasrec.max_length = 16
    config.teacher.batch_size = 24
    config.teacher.cold_negatives = False
    config.teacher.loop.update(steps=400, evaluate_every=50, patience=3)
    config.parse.update(categories=12, max_tokens=128)
    config.parse.optimizer.learning_rate = 4e-3
    config.augment.way = "concatenate"
    config.distill.update(batch_size=32, num_candidates=100, rps_label="top1")
    config.distill.tasks.ta.update(share=0.125, weight=0.1)
    config.distill.tasks.rps.update(share=0.875, weight=0.9)
    config.distill.loop.update(steps=300, evaluate_every=50, checkpoint_every=100)
    config.tune.update(batch_size=32, select_by="HR@1", anchor=1.0)
    config.tune.optimizer.learning_rate = 2e-3
    config.tune.loop.update(steps=160, evaluate_every=40, checkpoint_every=80)
    return config
