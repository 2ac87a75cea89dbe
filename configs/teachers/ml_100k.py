"""Conventional recommenders on MovieLens-100K, leave-one-out.

Command: delrec baseline --config=configs/teachers/ml_100k.py --config.data.path=PATH/TO/ml-100k --workdir=runs/ml100k_sasrec
         (--config.teacher.name=gru4rec or caser for the others, --config.split.kind=by_user for the split by users)
Data: RecBole's atomic files; or, downloaded from GroupLens, --config.data.corpus=movielens --config.data.edition=100k.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "small.py")
    config.data.domain = "movies"
    teacher = config.teacher
    teacher.sasrec.update(max_length=100, dropout=0.3)
    teacher.gru4rec.update(max_length=100, dropout=0.3)
    teacher.caser.update(max_length=100, dropout=0.4)
    teacher.batch_size = 16  # rows of 100 labels: 61 steps per epoch
    teacher.optimizer.warmup_steps = 60
    teacher.loop.update(steps=3660, evaluate_every=122, checkpoint_every=610, patience=16)
    return config
