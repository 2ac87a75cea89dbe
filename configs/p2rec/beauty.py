"""P2Rec end to end on Amazon Beauty (2014, 5-core) with a small T5 pre-trained on its own text.

Command: delrec run --config=configs/p2rec/beauty.py --config.data.path=PATH/TO/beauty --workdir=runs/p2rec_beauty
         (SASRec alone, which is what decides: --config.augment.teachers="('sasrec',)")
Data: atomic files (beauty.inter, beauty.item); or, downloaded, as in configs/teachers/beauty.py.
Hardware and time: not yet run. Estimated for 2 CPU cores, from 0.37 s of one core per step of pretrain (16 steps measured)
and Office's times: pretrain 8 minutes, parse 7 minutes per seed.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "office.py")
    beauty = base_config(__file__, "../teachers/beauty.py")
    config.teacher, config.evaluate = beauty.teacher, beauty.evaluate
    # The gate asks all 22,363 users about 12,101 items, so it is asked seldom.
    config.pretrain.loop.update(steps=900, evaluate_every=450, checkpoint_every=450)
    config.parse.loop.update(steps=500, evaluate_every=125)
    config.parse.valid_users = 0.05
    return config
