"""DELRec with a real sentence encoder (all-MiniLM-L6-v2) on Amazon Beauty (2014, 5-core).

Command: delrec run --config=configs/minilm/beauty.py --config.data.path=PATH/TO/beauty --workdir=runs/minilm_beauty
Data: atomic files (beauty.inter, beauty.item); or, downloaded, as in configs/teachers/beauty.py.
Hardware and time: not yet run in full. Most of the time is stage 2 (115,200 texts with its two controls) and ranking 22,363
users with every system; --config.evaluate.users=6000 ranks a draw of them.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "office.py")
    beauty = base_config(__file__, "../teachers/beauty.py")
    config.teacher, config.evaluate = beauty.teacher, beauty.evaluate
    # Of 22,363 users, two positions each are more than stage 2 reads.
    config.distill.positions = 1
    config.tune.positions = 2
    config.tune.loop.steps = 1200
    # Seven times as many users to rank as in office.py: of the controls, those that decide.
    config.distill.controls = ()
    config.tune.controls = ("none", "random")
    return config
