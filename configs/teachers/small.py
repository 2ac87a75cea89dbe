"""Conventional recommenders on a small, sparse corpus (Steam, Office Products), leave-one-out.

Command: delrec baseline --config=configs/teachers/small.py --config.data.path=PATH/TO/steam --config.data.domain=games
         --config.data.k_core=3 --workdir=runs/steam_sasrec
         delrec baseline --config=configs/teachers/small.py --config.data.path=PATH/TO/office-products --workdir=runs/office
Data: atomic files.
"""

from ml_collections import ConfigDict

from delrec_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.update(corpus="atomic", domain="items")
    teacher = config.teacher
    teacher.sasrec.update(width=64, layers=2, heads=2, max_length=50, dropout=0.5)
    teacher.gru4rec.update(width=64, hidden=128, layers=1, max_length=50, dropout=0.5)
    teacher.caser.update(width=100, max_length=50, dropout=0.5)
    teacher.batch_size = 8
    teacher.optimizer.update(
        name="adam", learning_rate=1e-3, schedule="constant", warmup_steps=100, average=0.995
    )
    teacher.loop.update(steps=3000, evaluate_every=100, checkpoint_every=500, patience=6)
    return config
