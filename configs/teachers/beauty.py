"""Conventional recommenders on Amazon Beauty (2014), 5-core, leave-one-out.

Command: delrec baseline --config=configs/teachers/beauty.py --config.data.path=PATH/TO/beauty --workdir=runs/beauty_sasrec
         (--config.teacher.name=gru4rec or caser for the others)
Data: atomic files; or, downloaded, --config.data.corpus=amazon --config.data.edition=2014 --config.data.category=Beauty
      --config.data.k_core=5.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "small.py")
    config.teacher.batch_size = 32  # rows of 50 labels: 82 steps per epoch
    config.teacher.optimizer.update(warmup_steps=200, average=0.998)
    config.teacher.loop.update(steps=3280, evaluate_every=246, checkpoint_every=820, patience=4)
    config.evaluate.batch_size = 512
    return config
