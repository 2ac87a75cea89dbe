"""Conventional recommenders on MovieLens-100K, leave-one-out.

Command: delrec baseline --config=configs/teachers/ml_100k.py --config.data.path=PATH/TO/ml-100k --workdir=runs/ml100k_sasrec
         (--config.teacher.name=gru4rec or caser for the others, --config.split.kind=by_user for the split by users)
Data: RecBole's atomic files; or, downloaded from GroupLens, --config.data.corpus=movielens --config.data.edition=100k.
"""

from ml_collections import ConfigDict

from delrec_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.update(corpus="atomic", domain="movies")
    config.tune.few_users = 0  # the teacher alone, under any split
    teacher = config.teacher
    teacher.sasrec.update(width=64, layers=2, heads=2, max_length=100, dropout=0.3)
    teacher.gru4rec.update(width=64, hidden=128, layers=1, max_length=100, dropout=0.3)
    teacher.caser.update(width=100, max_length=100, dropout=0.4)
    teacher.batch_size = 16  # rows of 100 labels: 61 steps an epoch
    teacher.optimizer.update(
        name="adam", learning_rate=1e-3, schedule="constant", warmup_steps=60, average=0.995
    )
    teacher.loop.update(steps=3660, evaluate_every=122, checkpoint_every=610, patience=16)
    return config
