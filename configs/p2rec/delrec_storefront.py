"""DELRec with a teacher that P2Rec augmented, on the embedded storefront.

The language model is tuned to predict users' preferences, its item embeddings go into SASRec, and DELRec distills this SASRec.
The table has both: `teacher` (plain) and `teacher_augmented` (DELRec's).
Command: delrec run --config=configs/p2rec/delrec_storefront.py --workdir=runs/p2rec_delrec_storefront
Hardware and time: 2 CPU cores, 29 minutes alongside four other jobs.
Expect, `full` HR@1: teacher 0.40, augmented teacher 0.40, DELRec 0.51, each +- 0.03 (docs/results/older.md).
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "../storefront.py")
    config.method = "delrec_p2rec"
    config.teacher.cold_negatives = False
    p2rec = base_config(__file__, "storefront.py")
    config.parse, config.augment = p2rec.parse, p2rec.augment
    config.parse.seeds = 1
    return config
