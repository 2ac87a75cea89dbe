"""Conventional recommenders on Amazon Beauty (2014), 5-core, leave-one-out.

Command: delrec baseline --config=configs/teachers/beauty.py --config.data.path=PATH/TO/beauty --workdir=runs/beauty_sasrec
         (--config.teacher.name=gru4rec or caser for the others)
Data: atomic files; or, downloaded, --config.data.corpus=amazon --config.data.edition=2014 --config.data.category=Beauty
      --config.data.k_core=5.
"""

from ml_collections import ConfigDict

from delrec_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.update(corpus="atomic", domain="items")
    config.tune.few_users = 0  # the teacher alone, under any split
    teacher = config.teacher
    teacher.sasrec.update(width=64, layers=2, heads=2, max_length=50, dropout=0.5)
    teacher.gru4rec.update(width=64, hidden=128, layers=1, max_length=50, dropout=0.5)
    teacher.caser.update(width=100, max_length=50, dropout=0.5)
    teacher.batch_size = 32  # rows of 50 labels: 82 steps an epoch
    teacher.optimizer.update(
        name="adam", learning_rate=1e-3, schedule="constant", warmup_steps=200, average=0.998
    )
    teacher.loop.update(steps=3280, evaluate_every=246, checkpoint_every=820, patience=4)
    config.evaluate.batch_size = 512
    return config
