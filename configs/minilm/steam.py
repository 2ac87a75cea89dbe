"""DELRec with a real sentence encoder (all-MiniLM-L6-v2) on Steam.

Command: delrec run --config=configs/minilm/steam.py --config.data.path=PATH/TO/steam --workdir=runs/minilm_steam
Data: atomic files (steam.inter, steam.item).
Hardware and time: not yet run.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "office.py")
    config.data.update(domain="games", k_core=3)
    return config
