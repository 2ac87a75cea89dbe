"""DELRec with a real sentence encoder (all-MiniLM-L6-v2) on your own data: a pair of CSV files.

Command: delrec run --config=configs/minilm/own.py --config.data.path=PATH/TO/FOLDER --workdir=runs/own
Data: interactions.csv (user, item, time) and items.csv (item, title) in one folder.
Hardware and time: as configs/minilm/office.py for a corpus of that size (3,200 users: 43 minutes on 2 CPU cores), half of it
      for the controls, which --config.tune.controls="()" and --config.distill.controls="()" leave out. Of more than 6,000 test
      users a draw is ranked, so that time does not grow with them (--config.evaluate.users=0 ranks all).
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "office.py")
    config.data.corpus = "csv"
    config.distill.exam_users = 1000
    config.evaluate.users = 6000
    return config
